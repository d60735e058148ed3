"""NumPy archives (.npz), without pickles and without surprises in size."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import checked_size
from trustsweep.data_pipelines.readers.quiet import quiet
from trustsweep.data_pipelines.registry import nearest

#: Of the arrays that one call returns.
MAX_BYTES = 2**32

_SUFFIX = ".npy"
_CHUNK = 2**22
#: What `numpy.savez` writes. Others can ask for gigabytes to unpack a few bytes.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: Booleans, integers, floats, complex numbers, bytes and text of fixed length.
_KINDS = "biufcSU"
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def read_npz(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """The named arrays, in the machine's byte order.

    Raises `BadFile` for a file that is missing, damaged, truncated or no .npz, for names that it
    lacks, for arrays of Python objects, records or dates, and for more than `MAX_BYTES` in all,
    before anything is unpacked.
    """
    with _archive(path) as archive:
        members = [_member(path, archive, name) for name in names]
        if sum(member.file_size for member in members) > MAX_BYTES:
            raise BadFile(
                path, f"claims more than {MAX_BYTES:,} bytes; not unpacked. Split it, or stream it."
            )
        return {
            name: _array(path, archive, member) for name, member in zip(names, members, strict=True)
        }


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name to shape of every array, from the headers alone. Raises `BadFile` as `read_npz`."""
    with _archive(path) as archive:
        shapes = {}
        for name in _names(archive):
            member = _member(path, archive, name)
            with archive.open(member) as stream:
                shapes[name] = _header(path, member, stream).shape
        return shapes


def stream_npz(path: Path, name: str, *, rows: int = 256) -> Iterator[NDArray[Any]]:
    """One array in pieces of at most `rows` along its first axis, in bounded memory.

    Raises `BadFile` as `read_npz` where the iteration meets the cause, whatever the array's size;
    also for an array without axes, in Fortran's order, or whose single row exceeds `MAX_BYTES`.
    """
    with _archive(path) as archive:
        member = _member(path, archive, name)
        with archive.open(member) as stream:
            header = _header(path, member, stream)
            if not header.shape or header.fortran:
                raise BadFile(path, f"array {name!r} is not stored row by row. Store it anew.")
            length, *rest = header.shape
            row_bytes = prod(rest) * header.dtype.itemsize
            if row_bytes * rows > MAX_BYTES:
                raise BadFile(path, f"a row of {name!r} is larger than the reader holds at a time.")
            for start in range(0, length, rows):
                count = min(rows, length - start)
                content = _exactly(path, member, stream, count * row_bytes)
                yield _native(np.frombuffer(content, header.dtype).reshape(count, *rest))
            _exhausted(path, member, stream)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    checked_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise BadFile(path, f"no .npz archive, or damaged ({error}). Fetch it again.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(path, f"damaged or truncated ({error}). Fetch it again.") from error
    # `zipfile` says so of encrypted members and of features that it lacks; the others it raises
    # for damaged directories.
    except (RuntimeError, ValueError, OverflowError, LookupError) as error:
        raise BadFile(path, f"cannot be unpacked ({error}). Store it anew.") from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [
        info.filename.removesuffix(_SUFFIX)
        for info in archive.infolist()
        if info.filename.endswith(_SUFFIX)
    ]


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    members = [info for info in archive.infolist() if info.filename == name + _SUFFIX]
    if not members:
        known = _names(archive)
        raise BadFile(
            path,
            f"no array {name!r}{nearest(name, known)} It has: {', '.join(known[:20]) or 'none'}.",
        )
    if len(members) > 1:
        raise BadFile(path, f"several arrays {name!r}. Store it anew.")
    if members[0].compress_type not in _METHODS:
        raise BadFile(path, f"array {name!r} is packed in a way that NumPy does not write.")
    return members[0]


def _header(path: Path, member: zipfile.ZipInfo, stream: IO[bytes]) -> _Header:
    """Leaves `stream` at the first value."""
    name = member.filename.removesuffix(_SUFFIX)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _READ_HEADER:
            raise BadFile(path, f"array {name!r} is of a version of .npy that is not read.")
        # NumPy warns of headers that Python 2 wrote.
        with quiet():
            shape, fortran, dtype = _READ_HEADER[version](stream)
    except (BadFile, OSError, zipfile.BadZipFile, zlib.error):
        raise
    # NumPy parses the header as Python: beside SyntaxError, its tokenizer has errors of its own.
    except Exception as error:
        raise BadFile(path, f"array {name!r} has no usable header. Fetch it again.") from error
    if dtype.kind not in _KINDS:
        what = "Python objects" if dtype.hasobject else f"type {dtype}"
        raise BadFile(path, f"array {name!r} holds {what}, which are not read. Store numbers.")
    header = _Header(shape, fortran, dtype)
    if min(shape, default=0) < 0 or header.nbytes != member.file_size - stream.tell():
        raise BadFile(path, f"array {name!r} is not as long as its shape says. Fetch it again.")
    return header


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        header = _header(path, member, stream)
        content = _exactly(path, member, stream, header.nbytes)
        _exhausted(path, member, stream)
    flat = np.frombuffer(content, header.dtype)
    if header.fortran:
        return _native(flat.reshape(header.shape[::-1]).T)
    return _native(flat.reshape(header.shape))


def _exactly(path: Path, member: zipfile.ZipInfo, stream: IO[bytes], count: int) -> bytearray:
    """Grows with the data read, so that a false size reserves nothing."""
    content = bytearray()
    while len(content) < count:
        piece = stream.read(min(_CHUNK, count - len(content)))
        if not piece:
            raise BadFile(path, f"{member.filename} is truncated. Fetch it again.")
        content += piece
    return content


def _exhausted(path: Path, member: zipfile.ZipInfo, stream: IO[bytes]) -> None:
    """Its checksum is compared at the end alone."""
    if stream.read(1):
        raise BadFile(path, f"{member.filename} is longer than its header says. Fetch it again.")


def _native(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
