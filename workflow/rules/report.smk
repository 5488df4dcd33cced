"""
What the report shows besides the map. Made when the report is asked for: make report.

NEEDS: everything that a run leaves behind
MAKES: <results>/summary/, a table each for every file's fate, failures, quality, time and provenance
"""


rule summarise:
    """Write the tables of the report."""
    input:
        get_final_output(),
    output:
        fates=report(
            "<results>/summary/fates.html",
            caption="../report/fates.rst",
            category="Photos",
            labels={"shows": "what became of every file"},
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
            labels={"shows": "quality and drift"},
        ),
        times=report(
            "<results>/summary/times.html",
            caption="../report/times.rst",
            category="How it was made",
            labels={"shows": "time and memory"},
        ),
        provenance=report(
            "<results>/summary/provenance.html",
            caption="../report/provenance.rst",
            category="How it was made",
            labels={"shows": "models, versions, settings"},
        ),
    log:
        "<logs>/summarise/summarise.log",
    conda:
        "../../envs/store.yaml"
    resources:
        scripts=SCRIPTS,
        state=STATE,
        database=DATABASE,
    message:
        "write the tables of the report"
    shell:
        "python {resources.scripts:q}/summarise.py"
        " --database {resources.database:q} --state {resources.state:q} --output {resources.state:q}/summary --log {log:q}"
