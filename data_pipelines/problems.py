"""Files that cannot be used: one, and all of a preparation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trustsweep.data_pipelines.errors import UserError

LISTED = 20


class BadFile(UserError):
    """A file that cannot be used. `reason` says why and what to do."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class BadFiles(UserError):
    """Every file that a preparation could not use.

    The message's first line is the first file's with the count of the others, then up to 20 of
    those a line each; `problems` holds them all, and so does the file `listed_in`, if there is one.
    """

    def __init__(self, problems: Sequence[BadFile], listed_in: Path | None = None) -> None:
        first, others = problems[0], problems[1:]
        lines = [f"{first} ({len(others)} more)" if others else str(first)]
        lines += [f"  {problem}" for problem in others[:LISTED]]
        if len(others) > LISTED:
            where = f"; all of them in {listed_in}" if listed_in else ""
            lines.append(f"  ... and {len(others) - LISTED} more{where}")
        super().__init__("\n".join(lines))
        self.problems = tuple(problems)
