"""A registry of lazily imported implementations, shared by every kind of plug-in.

One line registers an implementation (``"name": "module:attribute"``); nothing is imported until
it is used, so that listing and validating stay instant. Facts that a study is checked against stand
in that line as well (`registered`), and an implementation that contradicts them is
refused when it is imported. From outside of this repository, a plug-in file calls `register`, and
an installed package has an entry point of the registry's group
(`trustsweep.data_pipelines.plugins`).
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from trustsweep.data_pipelines import plugins
from trustsweep.data_pipelines.errors import UserError


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
        group: The group of entry points by which installed packages add to it; None for a
            closed registry.
        facts: Defaults for every entry.

    Raises `UserError` for an unknown name, with the nearest known one, and TypeError for an
    implementation that contradicts its facts.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, str | Entry],
        *,
        group: str | None = None,
        **facts: Any,
    ) -> None:
        self.kind = kind
        self._group = group
        self._facts = facts
        self._own = {
            name: Entry(entry, facts)
            if isinstance(entry, str)
            else Entry(entry.target, {**facts, **entry.facts})
            for name, entry in entries.items()
        }
        self._added: dict[str, Any] = {}

    def register(self, name: str, implementation: Any) -> None:
        """Add an implementation, from a plug-in file.

        Its facts are its attributes. Raises `UserError` for a name that is taken, or that is not
        the implementation's own `name`, where it has one.
        """
        _one_name(self.kind, name, implementation)
        known = self._added.get(name, implementation)
        if name in self._own or known is not implementation:
            raise UserError(f"{self.kind} {name!r} is registered already. Choose another name.")
        self._added[name] = implementation

    def __getitem__(self, name: str) -> Any:
        self._known(name)
        if name in self._added:
            return self._added[name]
        entry = self._entries[name]
        module, attribute = entry.target.split(":")
        implementation = getattr(import_module(module), attribute)
        _one_name(self.kind, name, implementation)
        for key, value in entry.facts.items():
            if getattr(implementation, key, None) != value:
                raise TypeError(
                    f"{self.kind} {name!r} is registered with {key} = {value!r}, but "
                    f"{entry.target}.{key} is {getattr(implementation, key, None)!r}"
                )
        return implementation

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def fact(self, name: str, key: str) -> Any:
        """The fact `key` in the line that registers `name`; no implementation is imported.

        Of what was added from outside, the attribute of that name.
        """
        self._known(name)
        if name in self._own:
            return self._own[name].facts[key]
        return getattr(self[name], key, self._facts.get(key))

    def having(self, **facts: Any) -> list[str]:
        """The names of the entries with all of these facts."""
        return [n for n in self if all(self.fact(n, key) == v for key, v in facts.items())]

    def ours(self, name: str) -> bool:
        """Whether an implementation is one of this repository, with all that is known of it in
        its facts."""
        self._known(name)
        return name in self._own

    def meaning(self, name: str) -> str:
        """The first line of its `docstring`."""
        return self.docstring(name).partition("\n")[0]

    def docstring(self, name: str) -> str:
        """The implementation's docstring, or else its module's; of ours it is read without
        importing anything."""
        self._known(name)
        if name in self._own:
            module, attribute = self._own[name].target.split(":")
            spec = find_spec(module)
            known = {} if spec is None or spec.origin is None else _docstrings(spec.origin)
            if attribute in known:
                return known[attribute] or known[""]
        added = self[name]
        # What a class inherits is of another.
        return inspect.cleandoc(added.__doc__ or sys.modules[added.__module__].__doc__ or "")

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        """Ours, and those of installed packages."""
        if self._group is None:
            return self._own
        outside = plugins.entry_points(self._group)
        if taken := sorted(outside.keys() & self._own.keys()):
            raise UserError(
                f"{self._group}: an installed package offers {taken[0]!r} ({outside[taken[0]]}), "
                f"the name of a {self.kind} of trustsweep. Remove that package."
            )
        return {**self._own, **{name: Entry(target) for name, target in outside.items()}}

    @property
    def _names(self) -> list[str]:
        if self._group is not None:
            plugins.load()
        return list(dict.fromkeys([*self._entries, *self._added]))

    def _known(self, name: str) -> None:
        names = self._names
        if name not in names:
            known = sorted(names)
            raise UserError(
                f"unknown {self.kind} {name!r}{nearest(name, known)} Known: {', '.join(known)}."
            )


Value = TypeVar("Value")


class Table(Mapping[str, Value], Generic[Value]):
    """Names to plain values, such as meanings, in an order of their own; see `Registry`.

    Args:
        kind: What one of them is called in messages.
        rows: Name to value.
        group: The group of entry points by which installed packages add to it; None for a closed
            table.
    """

    def __init__(self, kind: str, rows: Mapping[str, Value], *, group: str | None = None) -> None:
        self.kind = kind
        self._rows = dict(rows)
        self._group = group

    def register(self, name: str, value: Value) -> None:
        """Add a value, from a plug-in file.

        Raises `UserError` for a name that is taken, or that is not the value's own `name`, where
        it has one.
        """
        _one_name(self.kind, name, value)
        if self._rows.get(name, value) != value:
            raise UserError(f"{self.kind} {name!r} is registered already. Choose another name.")
        self._rows[name] = value

    def __getitem__(self, name: str) -> Value:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def _all(self) -> dict[str, Value]:
        if self._group is not None:
            for name, target in plugins.entry_points(self._group).items():
                module, attribute = target.split(":")
                self.register(name, getattr(import_module(module), attribute))
            plugins.load()
        return self._rows


def _one_name(kind: str, name: str, added: Any) -> None:
    """Under two names, one would be looked for and never found."""
    own = getattr(added, "name", name)
    if isinstance(own, str) and own != name:
        raise UserError(f"{kind} {name!r} calls itself {own!r}. Give it one name.")


@cache
def _docstrings(file: str) -> dict[str, str]:
    """Those of the classes and functions of a module, by name, its own as ""; nothing is run."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    docstrings = {
        node.name: ast.get_docstring(node) or ""
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    return {**docstrings, "": ast.get_docstring(tree) or ""}
