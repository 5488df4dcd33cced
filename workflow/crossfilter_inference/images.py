"""Old location of `Preprocessing`, from which users' backends of version 0.1 import it.

The digest of a backend file is part of its provenance: a corrected import would make a user re-embed every photo.
"""

from .photos.image import Preprocessing

__all__ = ["Preprocessing"]
