"""Export previews of photos as Crossfilter's application finds them: `<first two letters of the UUID>/<UUID>.jpg`.

A preview is an upright sRGB JPEG file. If the photo is missing or cannot be read, it is its thumbnail. A comment in the
file marks it as made here, and holds size and time of the photo. So a later export makes only what is missing or has
changed, and replaces no file of others.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ..collection import Collection
from ..db.connect import chunks
from ..embed.decode_pool import Failed, working
from ..embed.decode_process import DecodeProcess
from ..errors import InputError
from ..photos.names import is_uuid
from ..photos.scan import size_and_time
from ..shards.plan import PlannedImage
from ..util.files import write_bytes
from ..util.progress import Progress
from ..util.text import counted

SIDE = 1024  # pixels, of the long side
_OWN = re.compile(rb"\xff\xd8.{0,64}?\xff\xfe..crossfilter-inference preview of ([ -~]+)", re.DOTALL)
_HEAD = 256  # bytes; the comment stands among the first


def subfolders(uuids: Iterable[str]) -> list[str]:
    """Return the names of the folders of some previews."""
    return sorted({uuid[:2] for uuid in uuids if is_uuid(uuid)})


@dataclass
class Previews:
    """The previews of a collection, before and after they are written.

    Attributes
    ----------
    folder : str
    to_make : list of PlannedImage
        Photos whose preview is missing or out of date.
    without_photo : list of str
        UUIDs of photos without a preview whose file is missing or cannot be read.
    n_current : int
        Photos whose preview exists.
    n_made, n_thumbnails, n_none : int
        Previews that were made of photos, those that are thumbnails, and photos that have no preview.
    """

    folder: str
    to_make: list[PlannedImage]
    without_photo: list[str]
    n_current: int = 0
    n_made: int = 0
    n_thumbnails: int = 0
    n_none: int = 0

    def summary(self) -> str:
        """Describe them in a few words, such as `62 previews in previews`."""
        n_all = self.n_current + self.n_made + self.n_thumbnails
        notes = {
            "made before": self.n_current,
            "thumbnails, because the photo is missing or cannot be read": self.n_thumbnails,
        }
        words = [f"{n:,} of them {what}" for what, n in notes.items() if n]
        words += [f"{counted(self.n_none, 'photos')} without one"] if self.n_none else []
        return ", ".join([f"{counted(n_all, 'previews')} in {self.folder}", *words])


def plan_previews(folder: str, collection: Collection) -> Previews:
    """Find out which previews have to be made; write nothing.

    Parameters
    ----------
    folder : str
    collection : Collection

    Raises
    ------
    InputError
        If a file of others has the path of a preview.
    """
    previews = Previews(folder, [], [])
    for chunk in chunks(collection.uuids):
        for uuid, photo in collection.photos(chunk).items():
            if not is_uuid(uuid):  # such as the name of a photo of the original tool, which may lead anywhere
                previews.n_none += 1
                continue
            image = _planned(uuid, collection.path(photo))
            made_of = _made_of(_path(folder, uuid))
            if made_of and (image is None or made_of == _source(image)):
                previews.n_current += 1
            elif image:
                previews.to_make.append(image)
            else:
                previews.without_photo.append(uuid)
    return previews


def write_previews(previews: Previews, collection: Collection, n_workers: int) -> None:
    """Make the previews that are planned; an interrupted export can be repeated.

    Parameters
    ----------
    previews : Previews
        Its counts are completed.
    collection : Collection
    n_workers : int
        Processes that decode.
    """
    failed = []

    def make(process: DecodeProcess, image: PlannedImage) -> Failed | None:
        jpeg = process.reduce(image, SIDE)
        if isinstance(jpeg, Failed):
            return jpeg
        _write(previews.folder, image.uuid, jpeg, _source(image))
        return None

    with (
        Progress(len(previews.to_make), "previews") as progress,
        working(
            make, previews.to_make, collection.preprocessing, n_workers=n_workers, n_ahead=lambda: 2 * n_workers
        ) as results,
    ):
        for result in results:
            progress.update(1)
            previews.n_made += result is None
            failed += [result.image.uuid] if result else []
    kept = {uuid for uuid in failed if _made_of(_path(previews.folder, uuid))}  # better than a thumbnail
    previews.n_current += len(kept)
    for chunk in chunks(uuid for uuid in chain(previews.without_photo, failed) if uuid not in kept):
        thumbnails = collection.thumbnails(chunk)
        for uuid, jpeg in thumbnails.items():
            _write(previews.folder, uuid, jpeg, "its thumbnail")
        previews.n_thumbnails += len(thumbnails)
        previews.n_none += len(chunk) - len(thumbnails)


def _path(folder: str, uuid: str) -> Path:
    return Path(folder, uuid[:2], f"{uuid}.jpg")


def _planned(uuid: str, path: str) -> PlannedImage | None:
    """Return the photo as it is now; None if it is missing."""
    try:
        return PlannedImage(uuid, path, *size_and_time(os.stat(path)), "")
    except (OSError, ValueError):
        return None


def _source(image: PlannedImage) -> str:
    return f"{image.size} bytes, {image.mtime_ns} ns"


def _made_of(path: Path) -> str:
    """Return what a preview was made of; empty if there is none.

    Raises
    ------
    InputError
        If the file is not one of ours.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            head = file.read(_HEAD) if is_file else b""
    except FileNotFoundError:
        return ""
    if is_file and not head:  # of a power cut
        return ""
    if own := _OWN.match(head):
        return own[1].decode()
    raise InputError(
        f"--previews: {str(path)!r} exists and was not made by this command, which never replaces files of others; "
        "name another folder. Nothing was written"
    )


def _write(folder: str, uuid: str, jpeg: bytes, source: str) -> None:
    """Write a preview with a comment behind its JFIF header."""
    comment = f"crossfilter-inference preview of {source}".encode()
    start = 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == b"\xff\xe0" else 2
    marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big")
    write_bytes(_path(folder, uuid), jpeg[:start] + marker + comment + jpeg[start:])
