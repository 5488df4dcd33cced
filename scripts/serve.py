"""Run `crossfilter-inference serve` from a clone, on the collection of config.yaml."""

import _library  # noqa: F401
from crossfilter_inference.cli.command import run
from crossfilter_inference.cli.commands import serve

if __name__ == "__main__":
    run([serve])
