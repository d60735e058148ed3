"""A registry of lazily imported implementations, shared by every kind of plug-in.

One line registers an implementation (``"name": "module:attribute"``); nothing is imported until
it is asked for, so that listing and validating stay instant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from data_pipelines.errors import UserError


def nearest(word: str, known: list[str]) -> str:
    """The end of a sentence: ", did you mean 'x'?" with the nearest known word, else "."."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f", did you mean {close[0]!r}?" if close else "."


class Registry(Mapping[str, Any]):
    """Names to implementations of one kind.

    Raises `UserError` for an unknown name, with the nearest known one.
    """

    def __init__(self, kind: str, entries: dict[str, str]) -> None:
        self.kind = kind
        self._entries = entries

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            known = sorted(self._entries)
            raise UserError(
                f"unknown {self.kind} {name!r}{nearest(name, known)} Known: {', '.join(known)}."
            )
        module, attribute = self._entries[name].split(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
