"""The protocol of a comparison: the same folds, budget and seeds for every method."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from comparing.figures import Arm
from comparing.models import Unit, load_evaluation, validated
from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.schema import INDEX_NAME, Manifest, Split

#: (fold, arm, name of what is kept, config) to the unit.
MakeUnit = Callable[[Path, str, str, Mapping[str, Any]], Unit]


@dataclass(frozen=True)
class DataSource:
    """A data set: its published folder (None for generated), and what is prepared of it."""

    layout: str
    folder: str | None
    size: int
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 16

    def prepared(self, name: str, folds: int, published: Path | None, out: Path) -> list[Path]:
        """The folders of the folds, made unless they were."""
        data = out / "data" / name
        if not (data / INDEX_NAME).is_file():
            raw = published / self.folder if published and self.folder else None
            prepare(raw, self.layout, data, size=self.size, folds=folds, **self.options)
        return [data / f"fold-{i}" for i in range(folds)]


@dataclass(frozen=True)
class Budget:
    """The same for every method.

    Attributes:
        folds: Of the cross-validation.
        candidates: Configurations tried on each fold, the defaults among them.
        seeds: Models of the chosen configuration and of the defaults on each fold.
    """

    folds: int = 5
    candidates: int = 4
    seeds: int = 2


@dataclass(frozen=True)
class Units:
    """The trained and evaluated units, by arm, fold and seed.

    Attributes:
        moved: By (arm, fold) whether tuning chose something else than the defaults.
    """

    tuned: Mapping[str, Sequence[Sequence[Unit]]]
    defaults: Mapping[str, Sequence[Sequence[Unit]]]
    moved: Mapping[tuple[str, str], bool]


@dataclass(frozen=True)
class ComparisonResults:
    """One data set.

    Attributes:
        manifests: Of the folds.
        tuned, defaults: By arm.
        moved: See `Units`.
    """

    manifests: Sequence[Manifest]
    tuned: Mapping[str, Arm]
    defaults: Mapping[str, Arm]
    moved: Mapping[tuple[str, str], bool]

    @property
    def sizes(self) -> tuple[int, int]:
        """Training and test samples of a fold, on average."""
        counts = [manifest.split_counts for manifest in self.manifests]
        return (
            round(mean(c[Split.TRAIN] for c in counts)),
            round(mean(c[Split.TEST] for c in counts)),
        )


def run(
    folds: Sequence[Path],
    drawn: Callable[[str, int], Sequence[Mapping[str, Any]]],
    tuned: Sequence[str],
    defaults: Mapping[str, Mapping[str, Any]],
    unit: MakeUnit,
    evaluate: Callable[[Unit], None],
    seeds: int,
    workers: Executor,
) -> Units:
    """Tune, train and evaluate every model unless that was done.

    Args:
        folds: Their folders.
        drawn: Of an arm and the number of a fold, the candidates, the defaults first.
        tuned: The arms that are tuned.
        defaults: The arms that are evaluated at their defaults as well (or only there), with these.
        evaluate: Trains a unit and saves its test metrics, unless that was done.
        seeds: Models of each evaluated configuration, none under the seed of the candidates.
    """
    tried = {
        (fold, arm): [
            unit(fold, arm, f"candidate-{i}", config) for i, config in enumerate(drawn(arm, number))
        ]
        for number, fold in enumerate(folds)
        for arm in tuned
    }
    flat = [one for units in tried.values() for one in units]
    values = dict(zip((u.kept for u in flat), workers.map(validated, flat), strict=True))
    chosen = {
        key: min(range(len(units)), key=lambda i: values[units[i].kept])
        for key, units in tried.items()
    }

    def final(fold: Path, arm: str, index: int, config: Mapping[str, Any]) -> list[Unit]:
        return [
            unit(fold, arm, f"config-{index}-seed-{seed}", {**config, "seed": seed})
            for seed in range(1, 1 + seeds)
        ]

    at_defaults = {
        arm: [final(fold, arm, 0, config) for fold in folds] for arm, config in defaults.items()
    }
    best = {
        arm: [final(fold, arm, i, tried[fold, arm][i].config) for fold, i in _of(chosen, arm)]
        for arm in tuned
    }
    wanted = {
        one.kept: one
        for kind in (at_defaults, best)
        for of_folds in kind.values()
        for units in of_folds
        for one in units
    }
    for _ in workers.map(evaluate, wanted.values()):
        pass
    return Units(best, at_defaults, {(arm, fold.name): i > 0 for (fold, arm), i in chosen.items()})


def _of(chosen: Mapping[tuple[Path, str], int], arm: str) -> list[tuple[Path, int]]:
    return [(fold, index) for (fold, name), index in chosen.items() if name == arm]


def read(units: Mapping[str, Sequence[Sequence[Unit]]], kind: str = "") -> dict[str, Arm]:
    """By arm the evaluations of these units, of one kind."""
    return {
        arm: Arm([[load_evaluation(one, kind) for one in fold] for fold in folds])
        for arm, folds in units.items()
    }


def parser(doc: str | None, sets: Sequence[str]) -> argparse.ArgumentParser:
    """The command line of every comparison."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--data", type=Path, help="the published folders")
    made.add_argument("--out", type=Path, required=True, help="prepared data and models")
    made.add_argument("--sets", nargs="+", choices=sets, default=list(sets))
    made.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    made.add_argument("--json", type=Path, help="write the figures here too")
    made.add_argument("--quick", action="store_true", help="tiny, on generated data")
    return made


@contextmanager
def pool(jobs: int) -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as workers:
        yield workers
