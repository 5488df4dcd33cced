"""Is it all right? Checks of rows, tables and a sample of photos; nothing is written."""
