"""A run as a whole: its plan, start, progress and end. It knows what Snakemake needs, and imports nothing of it."""
