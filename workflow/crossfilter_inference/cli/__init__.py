"""The command line: `crossfilter-inference` and the scripts."""
