"""
Draw the map.

NEEDS: <results>/map.tsv, and the thumbnails in the shard databases
MAKES: <results>/map.png
"""


rule draw_map:
    """Draw the whole sphere with the photos' thumbnails."""
    input:
        map="<results>/map.tsv",
        shards=collect("<results>/embeddings/{shard}.sqlite", shard=SHARDS),
    output:
        png="<results>/map.png",
    log:
        "<logs>/draw_map/draw_map.log",
    benchmark:
        "<benchmarks>/draw_map/draw_map.tsv"
    conda:
        "../../envs/map.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: forecast.map_memory_mb(len(PLAN.images), attempt),
        runtime=lambda wildcards, attempt: forecast.map_runtime(len(PLAN.images), attempt),
        scripts=SCRIPTS,
        state=STATE,
    params:
        type=TYPE,
    message:
        "draw the map"
    shell:
        "python {resources.scripts:q}/draw_map.py"
        " --type {params.type} --map {input.map:q} --embeddings {resources.state:q}/embeddings"
        " --output {output.png:q} --log {log:q}"
