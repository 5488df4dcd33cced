"""
Make the map and store it in the database.

NEEDS: the receipt <results>/embeddings.json, which represents all rows of the database; labels, if configured
MAKES: <results>/umap_model.pkl, <results>/map.tsv, <results>/neighbours.npz,
<results>/map_quality.json, and two tables of the database
"""


rule fit_umap:
    """Make or update the map of all embeddings in the database."""
    input:
        receipt="<results>/embeddings.json",
    output:
        model=update("<results>/umap_model.pkl"),
        map=update("<results>/map.tsv"),
        neighbours=update("<results>/neighbours.npz"),
        quality=update("<results>/map_quality.json"),
        stamp=RUN.stamps.umap,
    log:
        "<logs>/fit_umap/fit_umap.log",
    benchmark:
        "<benchmarks>/fit_umap/fit_umap.tsv"
    conda:
        "../../envs/umap.yaml"
    threads: RUN.shares.cores
    resources:
        mem_mb=lambda wildcards, attempt: forecast.map_memory_mb(len(RUN.plan.images), attempt),
        runtime=lambda wildcards, attempt: forecast.map_runtime(len(RUN.plan.images), attempt),
        scripts=SCRIPTS,
        database=RUN.database,
        labels=lambda wildcards: RUN.config.labels,  # no param: those stand unescaped in the report
    params:
        type=RUN.type,
        settings=RUN.config.umap.to_json(),
    message:
        "make the map"
    shell:
        "python {resources.scripts:q}/fit_umap.py"
        " --type {params.type} --receipt {input.receipt:q} --database {resources.database:q}"
        " --settings {params.settings:q} --model {output.model:q} --map {output.map:q}"
        " --neighbours {output.neighbours:q} --quality {output.quality:q} --labels={resources.labels:q} --threads {threads}"
        " --stamp {output.stamp:q} --log {log:q}"


rule store_map:
    """Store the UMAP model and the position of every photo in the database."""
    input:
        receipt="<results>/embeddings.json",
        model="<results>/umap_model.pkl",
        map="<results>/map.tsv",
        quality="<results>/map_quality.json",
    output:
        receipt="<results>/map_stored.json",
        stamp=RUN.stamps.map,
    log:
        "<logs>/store_map/store_map.log",
    benchmark:
        "<benchmarks>/store_map/store_map.tsv"
    localrule: True
    conda:
        "../../envs/store.yaml"
    resources:
        scripts=SCRIPTS,
        database=RUN.database,
    params:
        type=RUN.type,
        generation=RUN.map_generation,
    message:
        "store the map in {resources.database}"
    shell:
        "python {resources.scripts:q}/store_map.py"
        " --type {params.type} --database {resources.database:q}"
        " --model {input.model:q} --map {input.map:q} --quality {input.quality:q}"
        " --generation {params.generation} --receipt {output.receipt:q} --stamp {output.stamp:q} --log {log:q}"
