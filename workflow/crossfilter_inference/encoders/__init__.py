"""Encoders, which turn images and texts into embeddings. Importing this package imports none of them."""
