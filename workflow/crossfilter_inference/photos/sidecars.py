"""The names of sidecars: files next to a photo that record when and where it was taken.

Google Takeout writes JSON, photo editors write XMP. A program may shorten the name of the photo in that of the sidecar,
or number both; the rules here follow Takeout's.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable

EXTENSIONS = (".xmp", ".json")  # in order of preference
_SUPPLEMENT = "supplemental-metadata"
_SHORTENED = 46  # characters of a photo's name that Takeout keeps
_NUMBERED = re.compile(r"(.*)(\(\d+\))")
_EDITED = re.compile(
    r"(.*)-(?:edited|bearbeitet|modifié|editado|modificato|bewerkt|edytowane)(\(\d+\))?", re.IGNORECASE
)


def match_sidecars(names: Iterable[str]) -> dict[str, list[str]]:
    """Find out which sidecars belong to which files, from the names of all files in a folder.

    Returns
    -------
    dict
        From the name of a file to the names of its sidecars, the preferred one first.
    """
    sidecars, by_name, by_stem = [], defaultdict(list), defaultdict(list)
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() in EXTENSIONS:
            sidecars.append((EXTENSIONS.index(extension.lower()), name, stem))
        else:
            by_name[name.casefold()].append(name)
            by_stem[stem.casefold()].append(name)
    found = defaultdict(list)
    for _, name, stem in sorted(sidecars):
        key = stem.casefold()
        owners = by_name.get(key)
        if not owners:
            owners = by_stem.get(key, []) if name.lower().endswith(".xmp") else _owners_of_json(key, by_name)
        for owner in owners:
            found[owner].append(name)
    if found:
        for stem, edited in by_stem.items():
            if match := _EDITED.fullmatch(stem):
                originals = by_stem.get(match[1] + (match[2] or ""), [])
                for name in edited:
                    if own := next((found[other] for other in originals if name not in found and other in found), None):
                        found[name] = own
    return dict(found)


def _owners_of_json(stem: str, by_name: dict[str, list[str]]) -> list[str]:
    """Find the photos of a Takeout sidecar, from its name without .json."""
    numbered = _NUMBERED.fullmatch(stem)
    base, number = numbered.groups() if numbered else (stem, "")
    head, _, tail = base.rpartition(".")
    for owner in (base, head if head and _SUPPLEMENT.startswith(tail) else ""):
        name, extension = os.path.splitext(owner)
        if owner and (found := by_name.get(name + number + extension)):
            return found
    if len(base) < _SHORTENED:
        return []
    return [name for key, names in by_name.items() if key.startswith(base) for name in names]
