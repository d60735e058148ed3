"""What a layout is: how one publisher's folder is enumerated and read."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from data_pipelines.errors import UserError
from data_pipelines.registry import nearest
from data_pipelines.sample import Sample
from data_pipelines.schema import Task

Case = TypeVar("Case")

#: Options of `prepare` itself, named beside a layout's own.
_COMMON = ("ratios", "ood_site")


class Layout(ABC, Generic[Case]):
    """A published folder. Cases are enumerated lazily and loaded one by one.

    A subclass's options are the keyword parameters of its constructor behind `folder`, `size` and
    `seed`. The constructor raises `UserError` for a folder or an option that it cannot use.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    #: Background (or negative) first.
    classes: ClassVar[tuple[str, ...]]
    licence: ClassVar[str]
    citation: ClassVar[str]
    #: Names of the entries of `Sample.tabular`.
    tabular_names: ClassVar[tuple[str, ...]] = ()
    #: Fields of `Sample` that name a group for fairness: of "site", "sex" and "age".
    groups: ClassVar[tuple[str, ...]] = ("site",)

    def __init__(self, folder: Path | None, *, size: int, seed: int) -> None:
        self.folder = folder
        self.size = size
        self.seed = seed

    @abstractmethod
    def cases(self) -> Iterator[Case]:
        """Every case, those that `load` will refuse included, in a fixed order."""

    @abstractmethod
    def load(self, case: Case) -> Sample:
        """Read or make one case at `size` x `size` pixels. Raises `BadFile`."""

    @abstractmethod
    def source_digest(self) -> str:
        """Hex digest of everything that the samples come from, other than `size` and `seed`."""

    def remarks(self) -> list[str]:
        """What the user should know of the folder as a whole, such as what is not read."""
        return []

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Option to its default."""
        parameters = inspect.signature(cls).parameters
        return {
            name: parameter.default
            for name, parameter in parameters.items()
            if name not in ("folder", "size", "seed")
        }

    @classmethod
    def create(
        cls, folder: Path | None, *, size: int, seed: int, options: Mapping[str, Any]
    ) -> Layout[Case]:
        """Raises `UserError` for an option that the layout lacks, and as the constructor."""
        own = cls.options()
        for name in options:
            if name not in own:
                known = [*own, *_COMMON]
                raise UserError(
                    f"layout {cls.name}: no option {name!r}{nearest(name, known)} "
                    f"Known: {', '.join(known)}."
                )
        return cls(folder, size=size, seed=seed, **options)
