r"""Say whether database, manifest, shards and map agree: one line per check, and the way out where one has failed.

It reads the configuration as Snakemake does, with paths relative to the current folder, and writes nothing. The exit
code is 0 if all is well, and 1 if not, or while a run is at work.

Example:
    python scripts/verify.py --configfile mine.yaml --sample 20
"""

import argparse
import os
import sys

import _command
from crossfilter_inference.verify.checks import closing_line, verify


def main(arguments: argparse.Namespace) -> str:
    config = _command.read_config(arguments)
    checks = []
    for check in verify(config, n_sample=arguments.sample, n_threads=os.cpu_count() or 1):
        print(check, flush=True)
        checks.append(check)
    print(closing_line(checks), flush=True)
    sys.exit(int(any(check.state == "FAILED" for check in checks)))


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--input_dir", nargs="+", help="folders of photos, if not those of the configuration")
    _command.add_config(options)
    options.add_argument("--sample", type=int, default=8, help="photos to embed again; 0 leaves it out (%(default)s)")
    _command.run(main, options)
