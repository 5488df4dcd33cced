"""The logic of Crossfilter Inference, without Snakemake.

From the ground up, each module importing only from those above its own: errors, files, compiled, sphere, config,
images, database, scan, plan, state, encoders, provenance, run, progress, decode, known_rows, shard_database, embed,
map_settings, neighbours, graph, layout, placement, umap_model, map_quality, mapping, store, figures.
"""
