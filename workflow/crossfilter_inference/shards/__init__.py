"""Immutable shards: which photo belongs to which, one shard's file, and their merge into the database."""
