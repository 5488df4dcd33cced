r"""Embed the words that regions of the map can be named by.

Example:
    python scripts/embed_words.py --encoder encoder.json --output words.npz \
        --words workflow/crossfilter_inference/map/words.txt
"""

import argparse

import _command
from crossfilter_inference.map.words import embed_words
from crossfilter_inference.util.files import read_json


def main(arguments: argparse.Namespace) -> str:
    n_words = embed_words(read_json(arguments.encoder), arguments.words, arguments.output)
    return f"{arguments.output}: {n_words} words"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--encoder", required=True, help="encoder.json, of an encoder that understands texts")
    options.add_argument("--words", required=True, help="list of words, one a line")
    options.add_argument("--output", required=True, help="words.npz to write")
    _command.add_log(options)
    _command.run(main, options)
