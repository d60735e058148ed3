"""Text files of any length in blocks of whole records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import checked_size
from trustsweep.data_pipelines.readers.inflate import opened

#: A line, or several that a quoted field joins, is shorter.
MAX_RECORD = 2**24

_BLOCK = 2**22
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Block:
    """Whole records; `line` is that of the first, from 1."""

    line: int
    text: str


def blocks(path: Path) -> Iterator[Block]:
    """Blocks that end where a record does: at a line's end with an even count of quotes.

    Raises `BadFile` for a file that is missing, empty, damaged or not UTF-8 (with or without BOM),
    for zero bytes, and for a record longer than `MAX_RECORD` bytes.
    """
    checked_size(path)
    with opened(path) as (stream, _):
        pending, line = stream.read(len(_BOM)).removeprefix(_BOM), 1
        if pending.startswith(_UTF_16):
            raise BadFile(path, "UTF-16 text. Save it as UTF-8.")
        while chunk := stream.read(_BLOCK):
            pending += chunk
            end = _last_end(pending)
            if end:
                yield _block(path, line, pending[:end])
                line += pending.count(b"\n", 0, end)
                pending = pending[end:]
            if len(pending) > MAX_RECORD:
                raise BadFile(
                    path,
                    f"line {line}: goes on for more than {MAX_RECORD:,} bytes. "
                    "Is a quote not closed?",
                )
        if pending:
            yield _block(path, line, pending)


def _last_end(content: bytes) -> int:
    """Behind the last record that is complete; 0 where none is."""
    end = content.rfind(b"\n") + 1
    quotes = content.count(b'"', 0, end)
    while quotes % 2:
        before = content.rfind(b"\n", 0, end - 1) + 1
        quotes -= content.count(b'"', before, end)
        end = before
    return end


def _block(path: Path, line: int, content: bytes) -> Block:
    if (place := content.find(b"\0")) >= 0:
        line += content.count(b"\n", 0, place)
        raise BadFile(path, f"line {line}: a zero byte. Is this a text file?")
    try:
        return Block(line, content.decode())
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        # The error quotes the text.
        raise BadFile(path, f"line {line}: not UTF-8. Convert it.") from None
