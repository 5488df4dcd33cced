"""The job of one shard: decode its photos, encode them in batches, write the shard database."""
