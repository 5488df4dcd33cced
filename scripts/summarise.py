r"""Write what the report tells besides the map: its first page, every file's fate, failures, quality, time, provenance.

Example:
    python scripts/summarise.py --database photos.sqlite --state photos/EFFICIENTNET_LITE0 --output summary \
        --introduction workflow/report/workflow.rst
"""

import argparse

import _command
from crossfilter_inference.view.report import NAMES, write_summary


def main(arguments: argparse.Namespace) -> str:
    write_summary(arguments.database, arguments.state, arguments.output, arguments.introduction)
    return f"{arguments.output}: first page, {', '.join(NAMES)}"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--database", required=True, help="database to read from")
    options.add_argument("--state", required=True, help="folder of what the workflow remembers of an embedding type")
    options.add_argument("--output", required=True, help="folder for the first page and the tables")
    options.add_argument("--introduction", required=True, help="text that the first page begins with, in .rst format")
    _command.add_log(options)
    _command.run(main, options)
