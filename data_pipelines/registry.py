"""A registry of lazily imported implementations, shared by every kind of plug-in.

One line registers an implementation (``"name": "module:attribute"``); nothing is imported until
it is asked for, so that listing and validating stay instant. What a study is checked against stands
in that line as well, as facts (`registered`), and an implementation that contradicts them is
refused when it is imported.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_pipelines.errors import UserError


def nearest(word: str, known: list[str]) -> str:
    """The end of a sentence: ", did you mean 'x'?" with the nearest known word, else "."."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f", did you mean {close[0]!r}?" if close else "."


@dataclass(frozen=True)
class Entry:
    """One registered implementation.

    Attributes:
        target: Where it is, as "module:attribute".
        facts: Attributes of it that are known without importing it.
    """

    target: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def registered(target: str, **facts: Any) -> Entry:
    """An entry with facts, for the line that registers it."""
    return Entry(target, facts)


class Registry(Mapping[str, Any]):
    """Names to implementations of one kind.

    Args:
        kind: What one of them is called in messages.
        entries: Name to "module:attribute", or to what `registered` gives.
        facts: Those of every entry that does not say otherwise.

    Raises `UserError` for an unknown name, with the nearest known one, and TypeError for an
    implementation that contradicts its facts.
    """

    def __init__(self, kind: str, entries: Mapping[str, str | Entry], **facts: Any) -> None:
        self.kind = kind
        self._entries = {
            name: Entry(entry, facts)
            if isinstance(entry, str)
            else Entry(entry.target, {**facts, **entry.facts})
            for name, entry in entries.items()
        }

    def __getitem__(self, name: str) -> Any:
        entry = self._entry(name)
        module, attribute = entry.target.split(":")
        found = getattr(import_module(module), attribute)
        for key, value in entry.facts.items():
            if getattr(found, key, None) != value:
                raise TypeError(
                    f"{self.kind} {name!r} is registered with {key} = {value!r}, but "
                    f"{entry.target}.{key} is {getattr(found, key, None)!r}"
                )
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def fact(self, name: str, key: str) -> Any:
        """What the line that registers `name` says under `key`; nothing is imported."""
        return self._entry(name).facts[key]

    def having(self, **facts: Any) -> list[str]:
        """The names of the entries with all of these facts; nothing is imported."""
        return [
            name
            for name, entry in self._entries.items()
            if all(entry.facts.get(key) == value for key, value in facts.items())
        ]

    def meaning(self, name: str) -> str:
        """The first line of the implementation's docstring, read without importing it."""
        module, attribute = self._entry(name).target.split(":")
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            return ""
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
                return (ast.get_docstring(node) or "").partition("\n")[0]
        return (inspect.getdoc(self[name]) or "").partition("\n")[0]

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            known = sorted(self._entries)
            raise UserError(
                f"unknown {self.kind} {name!r}{nearest(name, known)} Known: {', '.join(known)}."
            )
        return self._entries[name]
