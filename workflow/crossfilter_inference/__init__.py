"""The logic of Crossfilter Inference, without Snakemake.

From the ground up, each module importing only from those above its own: errors, files, wording, compiled, sphere,
config, images, connections, database, scan, plan, state, encoders, shard_database, shard_reading, forecast, rows_log,
provenance, run, run_progress, progress, decode, known_rows, encoding, embed, map_settings, neighbours, graph, layout,
placement, umap_model, map_quality, mapping, merge, store, regions, words, map_contents, figures, page, drawing,
collection, search, duplicates, contact_sheet, export, summary, soundness, agreement, sample, verify.
"""
