"""Lists of names, one a line, as publishers give their splits."""

from __future__ import annotations

from pathlib import Path

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import checked_size

#: The lists of a million images stay far below this; a larger file is no list.
MAX_BYTES = 64 * 2**20


def read_names(path: Path) -> list[str]:
    """The lines of a UTF-8 text file without blanks around them, in order; empty ones left out.

    Raises `BadFile` for a file that is missing, empty, too large or no text, and for a name that
    is listed twice.
    """
    checked_size(path, MAX_BYTES)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(path, "not UTF-8 text. Fetch it again.") from error
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror}).") from error
    first: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not (name := line.strip()):
            continue
        if name in first:
            raise BadFile(path, f"line {number} lists the same name as line {first[name]}.")
        first[name] = number
    return list(first)
