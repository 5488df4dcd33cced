"""
Merge the shards into the database. Only the rules store_embeddings and store_map write to the database.

NEEDS: <results>/encoder.json, <results>/manifest.tsv and every shard database
MAKES: the database, and the receipt <results>/embeddings.json

The database is an output only while it is missing, because several rules and several embedding types write to it. Its
transaction, not Snakemake, undoes the changes of a failed job.
"""


rule store_embeddings:
    """Merge the shard databases into the database, in one transaction."""
    input:
        encoder="<results>/encoder.json",
        manifest="<results>/manifest.tsv",
        shards=collect("<results>/embeddings/{shard}.sqlite", shard=RUN.shards),
    output:
        receipt="<results>/embeddings.json",
        stamp=RUN.stamps.store,
        database=[] if os.path.exists(RUN.database) else update(RUN.database),
    log:
        "<logs>/store_embeddings/store_embeddings.log",
    benchmark:
        "<benchmarks>/store_embeddings/store_embeddings.tsv"
    localrule: True
    conda:
        "../../envs/store.yaml"
    resources:
        scripts=SCRIPTS,
        state=RUN.state,
        database=RUN.database,
    params:
        missing_images=RUN.config.missing_images,
        generation=RUN.store_generation,
    message:
        "merge the shards into {resources.database}"
    shell:
        "python {resources.scripts:q}/store_embeddings.py"
        " --encoder {input.encoder:q} --manifest {input.manifest:q} --plan {resources.state:q}/plan.tsv"
        " --shards {resources.state:q}/shards --embeddings {resources.state:q}/embeddings"
        " --database {resources.database:q} --missing_images {params.missing_images}"
        " --generation {params.generation} --receipt {output.receipt:q} --stamp {output.stamp:q} --log {log:q}"
