"""The database: tables, connections, rows, digests, provenance."""
