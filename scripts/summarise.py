"""The job of rule summarise."""

import _library  # noqa: F401
from crossfilter_inference.cli.command import run_job
from crossfilter_inference.view.report import NAMES, write_summary


def main(*, database: str, state: str, output: str, introduction: str) -> str:
    r"""Write the report's first page and tables: outcomes, failures, quality, times, provenance.

    Parameters
    ----------
    database : str
        Database to read from.
    state : str
        State folder of the embedding type.
    output : str
        Folder of the first page and the tables.
    introduction : str
        Introduction of the first page, a reStructuredText file.

    Examples
    --------
        python scripts/summarise.py --database photos.sqlite --state photos/EFFICIENTNET_LITE0 --output summary \
            --introduction workflow/report/workflow.rst
    """
    write_summary(database, state, output, introduction)
    return f"{output}: first page, {', '.join(NAMES)}"


if __name__ == "__main__":
    run_job(main)
