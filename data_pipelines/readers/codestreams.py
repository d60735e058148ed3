"""Sizes that compressed frames claim, read before any decoder reserves memory for them."""

from __future__ import annotations

import struct
from itertools import pairwise

_JPEG = b"\xff\xd8"
#: Start of codestream and the size marker that must follow it (ISO 15444-1, A.5.1).
_JPEG_2000 = b"\xff\x4f\xff\x51"
#: Frame headers of JPEG (ISO 10918-1, table B.1) and of JPEG-LS (0xF7).
_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA


def frame_size(content: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of a JPEG, JPEG-LS or JPEG 2000 codestream; None without any."""
    place = content.find(_JPEG_2000)
    if place >= 0 and not content.startswith(_JPEG):
        return _jpeg_2000(content[place + 4 : place + 42])
    return _jpeg(content) if content.startswith(_JPEG) else None


def run_length_size(content: bytes) -> int:
    """Bytes that a DICOM RLE frame (PS3.5 G) expands to."""
    count = min(struct.unpack_from("<I", content)[0], 15)
    starts = [*struct.unpack_from(f"<{count}I", content, 4), len(content)]
    return sum(_expanded(content[start:end]) for start, end in pairwise(starts))


def _expanded(segment: bytes) -> int:
    """PackBits: a count n, then n + 1 bytes as they are (n < 128), or one byte 257 - n times."""
    total = place = 0
    while place < len(segment):
        count = segment[place]
        if count < 128:
            total += count + 1
            place += count + 2
        else:
            total += 257 - count if count > 128 else 0
            place += 2 if count > 128 else 1
    return total


def _jpeg(content: bytes) -> tuple[int, int, int] | None:
    place = len(_JPEG)
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return None
        marker = content[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker in _FRAME:
            if place + 10 > len(content):
                return None
            rows, columns, components = struct.unpack_from(">HHB", content, place + 5)
            return rows, columns, components
        if marker == _START_OF_SCAN:
            return None
        place += 2 + max(struct.unpack_from(">H", content, place + 2)[0], 2)
    return None


def _jpeg_2000(content: bytes) -> tuple[int, int, int] | None:
    """`content` starts behind the size marker: its length, capabilities, then the grid."""
    if len(content) < 38:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", content, 4)
    return bottom - top, right - left, struct.unpack_from(">H", content, 36)[0]
