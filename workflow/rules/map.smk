"""
Draw the map.

NEEDS: the map, its neighbours and its quality; paths from the database; thumbnails from the shard databases
MAKES: <results>/map.html, the globe; <results>/map.png and <results>/map.svg, for papers; if the encoder understands
text, <results>/words.npz, to name regions
"""

from crossfilter_inference.map.settings import WORDS_FILE


rule embed_words:
    """Embed the words that can name regions of the map."""
    input:
        encoder="<results>/encoder.json",
        words=WORDS_FILE,
    output:
        words="<results>/words.npz",
    log:
        "<logs>/embed_words/embed_words.log",
    benchmark:
        "<benchmarks>/embed_words/embed_words.tsv"
    conda:
        "../../envs/embed.yaml"
    resources:
        mem_mb=forecast.TEXT_MEMORY_MB,
        scripts=SCRIPTS,
        backend=RUN.config.encoder.backend,
    message:
        "embed the words that can name regions"
    shell:
        "python {resources.scripts:q}/embed_words.py"
        " --encoder {input.encoder:q} --backend {resources.backend:q}"
        " --words {input.words:q} --output {output.words:q} --log {log:q}"


rule draw_map:
    """Draw the globe page, and pictures of the whole sphere with thumbnails."""
    input:
        map="<results>/map.tsv",
        neighbours="<results>/neighbours.npz",
        quality="<results>/map_quality.json",
        receipt="<results>/embeddings.json",
        manifest="<results>/manifest.tsv",
        shards=collect("<results>/embeddings/{shard}.sqlite", shard=RUN.shards),
        words="<results>/words.npz" if RUN.with_words else [],
    output:
        page=report("<results>/map.html", caption="../report/page.rst", category="Map", labels={"shows": "the globe"}),
        png=report(
            "<results>/map.png", caption="../report/picture.rst", category="Map", labels={"shows": "the whole sphere"}
        ),
        svg="<results>/map.svg",
        stamp=RUN.stamps.page,
    log:
        "<logs>/draw_map/draw_map.log",
    benchmark:
        "<benchmarks>/draw_map/draw_map.tsv"
    conda:
        "../../envs/map.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: forecast.map_memory_mb(len(RUN.plan.images), attempt),
        runtime=lambda wildcards, attempt: forecast.map_runtime(len(RUN.plan.images), attempt),
        scripts=SCRIPTS,
        state=RUN.state,
        database=RUN.database,
        labels=lambda wildcards: RUN.config.labels,  # no param: those stand unescaped in the report
    params:
        type=RUN.type,
        settings=RUN.config.page.to_json(),
    message:
        "draw the map"
    shell:
        "python {resources.scripts:q}/draw_map.py"
        " --type {params.type} --map {input.map:q} --neighbours {input.neighbours:q} --quality {input.quality:q}"
        " --database {resources.database:q} --embeddings {resources.state:q}/embeddings"
        " --labels={resources.labels:q} --words={input.words:q}"
        " --settings {params.settings:q} --page {output.page:q} --png {output.png:q} --svg {output.svg:q}"
        " --stamp {output.stamp:q} --log {log:q}"
