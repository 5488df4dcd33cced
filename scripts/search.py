r"""Find photos by a text, an image or a photo: UUID, path and similarity (cosine) of the nearest ones.

Texts are understood by encoders that have a text tower (SIGLIP2). It reads the configuration as Snakemake does.

Example:
    python scripts/search.py --uuid 5237ab3d-4df8-52aa-ae37-fa74dffefb1a
    python scripts/search.py --image "demo/photos/fish/5237ab3d-4df8-52aa-ae37-fa74dffefb1a.jpg" --n 5 --json
"""

import argparse
import json

import _command
from crossfilter_inference.collection import Collection
from crossfilter_inference.search import find_uuid, search
from crossfilter_inference.util.text import printable
from crossfilter_inference.view.contact_sheet import write_contact_sheet


def main(arguments: argparse.Namespace) -> str:
    collection = Collection(_command.read_config(arguments))
    uuid = find_uuid(collection, arguments.uuid) if arguments.uuid else None
    image = collection.load_image(arguments.image) if arguments.image else None
    if uuid:
        query = collection.embeddings[collection.uuids.index(uuid)]
    else:
        query = collection.embed_image(image) if image else collection.embed_text(arguments.text)
    found = search(collection, query, arguments.n, without=uuid)
    if arguments.json:
        print(json.dumps([photo._asdict() for photo in found], indent=2))
    else:
        for photo in found:
            print(f"{photo.similarity:.4f}  {photo.uuid}  {printable(photo.path)}")
    if arguments.html:
        groups = [("Most alike first", [(photo.uuid, photo.path, f"{photo.similarity:.3f}") for photo in found])]
        thumbnails = collection.thumbnails([*([uuid] if uuid else []), *(photo.uuid for photo in found)])
        if uuid:
            groups.insert(0, ("", [(uuid, collection.photos([uuid])[uuid].path, "")]))
        elif image:
            groups.insert(0, ("", [("", arguments.image, "")]))
            thumbnails[""] = image.thumbnail
        title = f"Photos of {arguments.text}" if arguments.text else "Photos like this one"
        write_contact_sheet(arguments.html, title, groups, thumbnails)
    return f"{len(found)} of {len(collection.uuids):,} photos{_command.look_at(arguments.html)}"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    query = options.add_mutually_exclusive_group(required=True)
    query.add_argument("--text", help="what is to be seen, such as 'a red panda on a branch'")
    query.add_argument("--image", help="path of an image file, which need not be in the collection")
    query.add_argument("--uuid", help="UUID of a photo of the collection, or the beginning of one")
    options.add_argument("--n", type=_command.at_least_one, default=10, help="how many photos (%(default)s)")
    options.add_argument("--json", action="store_true", help="print JSON")
    options.add_argument("--html", help="contact sheet to write")
    _command.add_config(options)
    _command.run(main, options)
