"""The reasons for which a photo is not embedded, and what a user can do about each."""

TRANSIENT = ("missing", "unreadable", "empty", "changed", "out of memory")  # the next run tries again
_COPY = "copy it again from the camera or a backup"
_CONVERT = "open it in an image viewer and save it as JPEG"
_ADVICE = {
    "missing": "put the file back, or ignore this if you removed it; the next run tries again",
    "unreadable": "check the file's permissions and the disk; the next run tries again",
    "empty": f"{_COPY}; the next run tries again",
    "changed": "run again when no other program writes to the file",
    "not an image": f"{_CONVERT}; if no viewer opens it, {_COPY}",
    "too large": f"raise max_megapixels if there is enough memory; otherwise {_CONVERT} with fewer pixels",
    "too slow": f"{_CONVERT}, with fewer pixels if it is very large",
    "truncated": _COPY,
    "damaged": f"{_COPY}; if there is none, {_CONVERT}",
    "crashed": f"{_CONVERT}; if no viewer opens it, {_COPY}",
    "out of memory": "give the job more memory or fewer cores; the next run tries again",
}


def advice(reason: str) -> str:
    """Return what to do about a photo that failed for this reason, as an imperative."""
    return _ADVICE.get(reason, f"{_COPY}, or {_CONVERT}")
