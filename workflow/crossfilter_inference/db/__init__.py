"""The database: tables and their format, connections, rows, digests, provenance."""
