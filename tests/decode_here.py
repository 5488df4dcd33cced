"""Decode photos in the process of a test or of the soak: each process that decodes takes 0.3 s to start."""

from crossfilter_inference import collection
from crossfilter_inference.embed import decode_pool
from crossfilter_inference.embed.decode_process import Decoded, DecodeProcess, Failed, decode_image, read_reduced
from crossfilter_inference.shards.plan import PlannedImage
from crossfilter_inference.verify import sample

USERS = (collection, decode_pool, sample)  # modules whose `DecodeProcess` is replaced


class DecodeHere(DecodeProcess):
    """Decode photos in this process, as the processes do that decode, but without their limits."""

    def decode(self, image: PlannedImage) -> Decoded | Failed:
        return decode_image(image, *self._how)

    def reduce(self, image: PlannedImage, side: int) -> bytes | Failed:
        return read_reduced(image, side, self._how[1])
