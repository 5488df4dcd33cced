"""Crossfilter Inference: a folder of photos becomes one SQLite database with a map."""

from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"


rule all:
    """Bring the database and its map up to date."""
    input:
        RUN.final_output(),
    localrule: True
    message:
        "check that all files are there"


include: "workflow/rules/manifest.smk"
include: "workflow/rules/encoder.smk"
include: "workflow/rules/embed.smk"
include: "workflow/rules/store.smk"
include: "workflow/rules/umap.smk"
include: "workflow/rules/map.smk"
include: "workflow/rules/report.smk"
