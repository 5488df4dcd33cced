"""Immutable shards: the plan that assigns photos to them, one shard's file, and the merge into the database."""
