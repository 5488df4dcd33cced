"""
Record all photos and the shard that owns each.

NEEDS: <results>/plan.tsv, written by `onstart`
MAKES: <results>/manifest.tsv, <results>/rejected.tsv, and the list of every new shard
"""


rule write_manifest:
    """Write the manifest and the lists of new shards, from the plan of this run."""
    output:
        manifest=update("<results>/manifest.tsv"),
        rejected=update("<results>/rejected.tsv"),
        shards=collect("<results>/shards/{shard}.tsv", shard=RUN.plan.new_shards),
        stamp=RUN.stamps.manifest,
    log:
        "<logs>/write_manifest/write_manifest.log",
    benchmark:
        "<benchmarks>/write_manifest/write_manifest.tsv"
    localrule: True
    conda:
        "../../envs/store.yaml"
    resources:
        scripts=SCRIPTS,
        state=RUN.state,
    message:
        "write the manifest"
    shell:
        "python {resources.scripts:q}/write_manifest.py"
        " --plan {resources.state:q}/plan.tsv --shards {resources.state:q}/shards"
        " --manifest {output.manifest:q} --rejected {output.rejected:q} --stamp {output.stamp:q} --log {log:q}"
