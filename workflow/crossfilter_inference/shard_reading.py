"""Read the rows of many shard databases, in a process of its own where there is much to read.

Reading and digesting a row takes as long as putting it into the database, and both wait for Python's lock.
"""

import marshal
import os
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from .errors import InputError
from .shard_database import ShardFailure, ShardRow, read_shard

# From as much on, a process is worth its start of half a second.
_MUCH_BYTES = 2**26

Part = tuple[str, list[ShardRow], list[ShardFailure]]


def read_shards(shards: dict[str, str], embedding_type: str) -> Iterator[Part]:
    """Yield the rows and failures of shards, some at a time, the name of their shard before them.

    Parameters
    ----------
    shards : dict
        Path of the shard database by the shard's name.
    embedding_type : str

    Raises
    ------
    InputError
        If a shard database is damaged.
    """
    if sum(Path(path).stat().st_size for path in shards.values()) < _MUCH_BYTES:
        for shard, path in shards.items():
            for rows, failures in read_shard(path, embedding_type):
                yield shard, rows, failures
    else:
        yield from _read_elsewhere(shards, embedding_type)


def _read_elsewhere(shards: dict[str, str], embedding_type: str) -> Iterator[Part]:
    receiving, sending = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=_send, args=(sending, shards, embedding_type), daemon=True)
    process.start()
    sending.close()  # so that its end is the end
    try:
        while (message := marshal.loads(receiving.recv_bytes())) is not None:
            if isinstance(message, str):
                raise InputError(message)
            shard, rows, failures = message
            yield shard, list(map(ShardRow._make, rows)), list(map(ShardFailure._make, failures))
    except EOFError:
        raise InputError(
            "the process that read the shard databases was killed, most often for want of memory; nothing is lost, run "
            "the same command again"
        ) from None
    finally:
        receiving.close()  # it ends when nobody listens any more
        process.join()


def _send(sending: Connection, shards: dict[str, str], embedding_type: str) -> None:
    try:
        for shard, path in shards.items():
            for rows, failures in read_shard(path, embedding_type):
                sending.send_bytes(marshal.dumps((shard, list(map(tuple, rows)), list(map(tuple, failures)))))
        sending.send_bytes(marshal.dumps(None))
    except InputError as error:
        sending.send_bytes(marshal.dumps(str(error)))
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
