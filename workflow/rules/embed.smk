"""
Embed the photos, one job per shard.

NEEDS: <results>/shards/{shard}.tsv, <results>/encoder.json, and <results>/plan.tsv for the current paths of the photos
MAKES: <results>/embeddings/{shard}.sqlite

An interrupted job leaves a journal of its finished rows, from which the next job resumes. If the shard database is
already complete, for the same list and encoder, the job ends at once.
"""


rule embed_shard:
    """Embed the photos of one shard."""
    input:
        shard="<results>/shards/{shard}.tsv",
        encoder="<results>/encoder.json",
    output:
        database=update("<results>/embeddings/{shard}.sqlite"),
    log:
        "<logs>/embed_shard/{shard}.log",
    benchmark:
        "<benchmarks>/embed_shard/{shard}.tsv"
    conda:
        "../../envs/embed.yaml"
    # One job with all cores is as fast as several that share them, and loads the encoder into memory only once.
    threads: RUN.shares.embed_cores
    resources:
        gpu=1 if RUN.shares.n_gpus else 0,
        mem_mb=lambda wildcards, attempt: RUN.cost.memory_mb(RUN.shard_sizes[wildcards.shard], attempt),
        runtime=lambda wildcards, attempt: RUN.cost.runtime(RUN.shard_sizes[wildcards.shard], attempt),
        n_gpus=0 if RUN.resources.on_cluster else RUN.shares.n_gpus,
        scratch="" if RUN.resources.is_main_process else "--scratch",
        scripts=SCRIPTS,
        state=RUN.state,
        batch_size=RUN.config.batch_size,
        device=RUN.config.device,
        database=RUN.database,
        max_megapixels=RUN.config.max_megapixels,
        recompute="--recompute" if RUN.config.recompute_existing_embeddings else "",
        backend=RUN.config.encoder.backend,
    message:
        "embed shard {wildcards.shard}"
    shell:
        "HF_HUB_OFFLINE=1 python {resources.scripts:q}/embed_shard.py"
        " --shard {input.shard:q} --plan {resources.state:q}/plan.tsv --encoder {input.encoder:q}"
        " --output {output.database:q} --database {resources.database:q} {resources.recompute}"
        " --batch_size {resources.batch_size} --threads {threads} --device {resources.device}"
        " --gpus {resources.n_gpus} {resources.scratch}"
        " --max_megapixels {resources.max_megapixels} --backend {resources.backend:q} --log {log:q}"
