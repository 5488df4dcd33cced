"""The job of rule embed_words."""

import _library  # noqa: F401
from crossfilter_inference.cli.command import run_job
from crossfilter_inference.map.words import embed_words
from crossfilter_inference.util.files import read_json


def main(*, encoder: str, words: str, output: str, backend: str = "") -> str:
    r"""Embed the words that can name regions of the map.

    Parameters
    ----------
    encoder : str
        encoder.json of an encoder with a text tower.
    words : str
        Text file with one word per line.
    output : str
        words.npz to write.
    backend : str
        The backend in the configuration. Without it, encoder.json cannot name a Python file.

    Examples
    --------
        python scripts/embed_words.py --encoder encoder.json --output words.npz \
            --words workflow/crossfilter_inference/map/words.txt
    """
    return f"{output}: {embed_words(read_json(encoder), words, output, [backend] if backend else [])} words"


if __name__ == "__main__":
    run_job(main)
