"""
Resolve the encoder. This is the only step that may use the network.

NEEDS: the encoder's entry in the configuration, the files of a local checkpoint
MAKES: <results>/encoder.json

The rule fails if the encoder's embeddings would be mixed with those of another encoder, before any is computed.
"""


rule resolve_encoder:
    """Resolve the encoder to a commit, digests and preprocessing, and download its weights."""
    output:
        encoder=update("<results>/encoder.json"),
        stamp=RUN.stamps.encoder,
    log:
        "<logs>/resolve_encoder/resolve_encoder.log",
    benchmark:
        "<benchmarks>/resolve_encoder/resolve_encoder.tsv"
    localrule: True
    conda:
        "../../envs/embed.yaml"
    resources:
        scripts=SCRIPTS,
        state=RUN.state,
        database=RUN.database,
        missing_images=RUN.config.missing_images,
        recompute="--recompute" if RUN.config.recompute_existing_embeddings else "",
        device=RUN.config.device,
    params:
        name=RUN.type,
        settings=lambda wildcards: RUN.config.encoder.to_json(),  # a function, as names may contain braces
    message:
        "resolve the encoder {params.name}"
    shell:
        "python {resources.scripts:q}/resolve_encoder.py"
        " --name {params.name} --settings {params.settings:q}"
        " --database {resources.database:q} --plan {resources.state:q}/plan.tsv"
        " --missing_images {resources.missing_images} {resources.recompute} --device {resources.device}"
        " --output {output.encoder:q} --stamp {output.stamp:q} --log {log:q}"
