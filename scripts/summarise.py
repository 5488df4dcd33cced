r"""Write what the report tells besides the map: every file's fate, failures, quality, time, provenance.

Example:
    python scripts/summarise.py --database photos.sqlite --state photos/EFFICIENTNET_LITE0 --output summary
"""

import argparse

import _command
from crossfilter_inference.summary import NAMES, write_summary


def main(arguments: argparse.Namespace) -> str:
    write_summary(arguments.database, arguments.state, arguments.output)
    return f"{arguments.output}: {', '.join(NAMES)}"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--database", required=True, help="database to read from")
    options.add_argument("--state", required=True, help="folder of what the workflow remembers of an embedding type")
    options.add_argument("--output", required=True, help="folder for the tables, which are HTML")
    _command.add_log(options)
    _command.run(main, options)
