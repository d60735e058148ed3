"""Files that may be gzipped, inflated no further than they are read."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from trustsweep.data_pipelines.problems import BadFile

_MAGIC = b"\x1f\x8b"
#: Deflate never shrinks by more.
_MAX_RATIO = 1032


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """The content, unpacked if it begins as gzip does, and the largest ratio by which it may grow.

    What goes wrong while it is read, checksums at the end included, becomes a `BadFile`.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(len(_MAGIC)) == _MAGIC
            file.seek(0)
            if packed:
                yield cast(IO[bytes], gzip.GzipFile(fileobj=file)), _MAX_RATIO
            else:
                yield file, 1
    except (EOFError, OSError, zlib.error) as error:
        raise BadFile(path, f"damaged or truncated ({error}). Fetch it again.") from error
