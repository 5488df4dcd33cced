"""The logic of Crossfilter Inference, without Snakemake.

From the ground up, each module importing only from those above its own: errors, files, sphere, config, images,
database, scan, plan, state, encoders, provenance, run, progress, decode, known_rows, shard_database, embed, umap_model,
store, figures.
"""
