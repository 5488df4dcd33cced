"""Facts of a photo that its file name tells where its EXIF does not."""

import os
import re
from collections.abc import Mapping
from typing import Any

from .exif import possible_time

# IMG_20210506_070809.jpg, PXL_20210506_070809123.jpg, 2021-05-06 07.08.09.jpg, Screenshot_2021-05-06-07-08-09.png.
_TIME = re.compile(r"(?<!\d)(\d{4})([-_.]?)(\d\d)\2(\d\d)[-_ .T]+(?:at )?(\d\d)([-_.:]?)(\d\d)\6(\d\d)(?:\d{3})?(?!\d)")


def with_file_name(facts: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Add to the facts of a photo what its file name tells.

    Parameters
    ----------
    facts : mapping
        Facts from the file's contents, by column in lower case.
    path : str

    Returns
    -------
    dict
        The facts, with the capture time of the name if `taken` is None, and with its source, `taken_from`: "exif",
        "name", or None.
    """
    if facts["taken"]:
        return {**facts, "taken_from": "exif"}
    for match in _TIME.finditer(os.path.basename(path)):
        if time := possible_time(*match.group(1, 3, 4, 5, 7, 8)):
            return {**facts, "taken": time, "taken_from": "name"}
    return {**facts, "taken_from": None}
