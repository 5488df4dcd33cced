"""
Write the first page and the tables of the report, on request: make report.

NEEDS: the outputs of a run
MAKES: <results>/summary/: the report's first page, and tables of outcomes, failures, quality, times and provenance
"""

INTRODUCTION = f"{PROJECT}/workflow/report/workflow.rst"
FIRST_PAGE = os.path.abspath(f"{RUN.state}/summary/first_page.rst")


report: FIRST_PAGE if os.path.exists(FIRST_PAGE) else INTRODUCTION


rule summarise:
    """Write the first page and the tables of the report."""
    input:
        RUN.final_output(),
        introduction=INTRODUCTION,
    output:
        first_page="<results>/summary/first_page.rst",
        outcomes=report(
            "<results>/summary/outcomes.html",
            caption="../report/outcomes.rst",
            category="Photos",
            labels={"shows": "outcomes: embedded, failed, rejected"},
        ),
        failures=report(
            "<results>/summary/failures.html",
            caption="../report/failures.rst",
            category="Photos",
            labels={"shows": "failed and rejected files"},
        ),
        quality=report(
            "<results>/summary/quality.html",
            caption="../report/quality.rst",
            category="Map",
            labels={"shows": "quality of the map"},
        ),
        times=report(
            "<results>/summary/times.html",
            caption="../report/times.rst",
            category="Method",
            labels={"shows": "time and memory"},
        ),
        provenance=report(
            "<results>/summary/provenance.html",
            caption="../report/provenance.rst",
            category="Method",
            labels={"shows": "models, versions, settings"},
        ),
    log:
        "<logs>/summarise/summarise.log",
    conda:
        "../../envs/store.yaml"
    resources:
        scripts=SCRIPTS,
        state=RUN.state,
        database=RUN.database,
    message:
        "write the first page and the tables of the report"
    shell:
        "python {resources.scripts:q}/summarise.py"
        " --database {resources.database:q} --state {resources.state:q} --output {resources.state:q}/summary"
        " --introduction {input.introduction:q} --log {log:q}"
