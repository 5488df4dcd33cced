"""Errors that a user can fix. Commands and the Snakefile print them as one line and exit with their code."""

import errno

# Faults of a disk or a network share, not of this program.
_OUTER_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE, errno.EACCES}


class InputError(Exception):
    """An error in the input. The message gives what happened, the value, and what to do."""

    exit_code = 1


class NoPhotos(InputError):
    """A folder of photos is missing, cannot be read or holds no photo."""


class TooManyFailed(InputError):
    """A complete run, of whose photos more failed than `max_failed_share` allows."""

    exit_code = 3


def outer_trouble(error: Exception) -> str:
    """Describe the fault of a disk, a network share or a file's permissions in one line; "" if it is another error."""
    if not isinstance(error, OSError) or not (error.errno in _OUTER_TROUBLE or error.filename):
        return ""
    where = f"{error.filename!r}: " if error.filename else ""
    return f"{where}{error.strerror}; fix this and run the same command again"
