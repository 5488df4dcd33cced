r"""Find photos that are almost the same: re-compressed, resized, cropped by a few per cent. It deletes nothing.

Groups come largest first, and in each the largest photo first. It reads the configuration as Snakemake does.

Example:
    python scripts/duplicates.py --html duplicates.html
"""

import argparse
import json
import os
from dataclasses import asdict

import _command
from crossfilter_inference.collection import Collection, Photo
from crossfilter_inference.duplicates import LEAST_COSINE, find_duplicates
from crossfilter_inference.util.text import printable
from crossfilter_inference.view.contact_sheet import write_contact_sheet


def main(arguments: argparse.Namespace) -> str:
    collection = Collection(_command.read_config(arguments))
    groups = find_duplicates(
        collection, arguments.least_cosine, os.cpu_count() or 1, by_cosine_alone=arguments.by_cosine_alone
    )
    if arguments.json:
        print(json.dumps([[asdict(photo) for photo in group] for group in groups], indent=2))
    else:
        for number, group in enumerate(groups, 1):
            print(f"group {number}")
            for photo in group:
                print(f"  {photo.uuid}  {_size(photo)}  {printable(photo.path)}")
    if arguments.html:
        sheet = [
            (f"Group {number}", [(photo.uuid, photo.path, _size(photo)) for photo in group])
            for number, group in enumerate(groups, 1)
        ]
        thumbnails = collection.thumbnails([photo.uuid for group in groups for photo in group])
        title = f"{len(groups)} groups of photos that are almost the same"
        write_contact_sheet(arguments.html, title, sheet, thumbnails)
    n_photos = sum(map(len, groups))
    found = f"groups: {len(groups)}, with {n_photos} of {len(collection.uuids):,} photos"
    return f"{found}; {n_photos - len(groups)} could go{_command.look_at(arguments.html)}"


def _size(photo: Photo) -> str:
    if not photo.width or not photo.size:
        return "size unknown"
    return f"{photo.width} x {photo.height}, {max(photo.size // 1000, 1):,} kB"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument(
        "--least_cosine",
        type=float,
        default=LEAST_COSINE,
        help="similarity from which two photos are compared, of centred embeddings, -1 to 1 (%(default)s)",
    )
    options.add_argument(
        "--by_cosine_alone",
        action="store_true",
        help="do not compare thumbnails: with --least_cosine .8 or so, photos of the same scene are grouped too",
    )
    options.add_argument("--json", action="store_true", help="print JSON")
    options.add_argument("--html", help="contact sheet to write")
    _command.add_config(options)
    _command.run(main, options)
