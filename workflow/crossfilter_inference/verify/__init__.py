"""Read-only checks that database, manifest, shards, map and photos agree."""
