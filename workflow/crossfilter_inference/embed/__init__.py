"""One shard's job: photos are decoded, batched, encoded, and written down."""
