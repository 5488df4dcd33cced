"""Crossfilter Inference without Snakemake: embed a photo collection, and map it.

In rooms by stage, from the ground up; each imports only from those named before it: errors, config, util, photos, db,
encoders, shards, embed, map, collection, search, duplicates, view, verify, run.
"""
