"""The run folder: where a sweep keeps what it found, and the views that are written from it."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data_pipelines.errors import UserError
from data_pipelines.machine import write_atomically
from data_pipelines.schema import MANIFEST_NAME, Manifest
from distributed.checks import measured_names, objectives_of
from distributed.front import Archive, Objective, hypervolume_history, reference_point
from distributed.ledger import SEARCH, Ledger, Record, State, trial_id, write_csv
from distributed.version import VERSION, code_revision
from search_spaces.study import SEED, Constraint, Study, load
from trainables.metrics.catalog import COSTS, metric_info

STUDY = "study.yaml"


@dataclass(frozen=True)
class Run:
    """A run folder and the ledger in it. See DESIGN: study, ledger, views, models, report."""

    path: Path
    ledger: Ledger

    @classmethod
    def create(cls, path: Path) -> Run:
        """A new folder. Raises `UserError` as `refuse_used`."""
        cls.refuse_used(path)
        path.mkdir(parents=True, exist_ok=True)
        path = path.resolve()
        run = cls(path, Ledger(path))
        run.checkpoints.mkdir()
        return run

    @staticmethod
    def refuse_used(path: Path) -> None:
        """Raises `UserError` if something is there already: a run is never written over."""
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise UserError(f"{path}: not empty. Name another folder with --out, or move it away.")

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing folder. Raises `UserError` if there is no run in it."""
        if not (path / STUDY).is_file():
            raise UserError(f"{path}: no run here (no {STUDY}). Name a folder that a sweep made.")
        return cls(path.resolve(), Ledger(path))

    @property
    def study(self) -> Study:
        """What the run was asked."""
        return load(self.path / STUDY)

    @property
    def checkpoints(self) -> Path:
        """One folder per trial: its model and card."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """The front's models on the test split."""
        return self.path / "evaluation"

    @property
    def ray(self) -> Path:
        """Ray's own bookkeeping; nothing here is read back."""
        return self.path / "ray"

    @property
    def resume_line(self) -> str:
        """The command that goes on with this run."""
        return f"trustsweep sweep --resume {shlex.quote(str(self.path))}"

    def front(
        self, objectives: Sequence[Objective], constraints: Sequence[Constraint]
    ) -> list[Record]:
        """The feasible completed trials of the search that no other such trial beats."""
        archive: Archive[Record] = Archive([o.direction for o in objectives])
        for record in _feasible(self.ledger, constraints):
            archive.add(record, values_of(record, objectives))
        return archive.keys

    def write_study(self, study: Study, manifest: Manifest) -> None:
        """What the run was asked: the study with every default, its space, and the data's card."""
        write_atomically(self.path / STUDY, study.to_yaml())
        space = json.dumps(study.search_space().to_dict(), indent=2)
        write_atomically(self.path / "space.json", space)
        write_atomically(self.path / MANIFEST_NAME, manifest.to_json())

    def write_views(
        self, study: Study, seconds: float | None = None, interrupted: str | None = None
    ) -> list[Record]:
        """`trials.csv`, `front.csv`, `hypervolume.csv` and `summary.json`; returns the front.

        All from the ledger. `seconds` is what the whole sweep took; until it is known, when the
        last trial ended. `interrupted` says why it is not at its end.
        """
        objectives = objectives_of(study)
        names = [o.name for o in objectives]
        front = self.front(objectives, study.constraints)
        records = _feasible(self.ledger, study.constraints)
        reference = _reference(records, objectives)
        volumes = _hypervolumes(records, objectives, reference)
        if seconds is None:
            seconds = max((r.ended for r in self.ledger.records.values()), default=0.0)
        self.ledger.write_trials(self.path / "trials.csv")
        write_csv(
            self.path / "front.csv",
            ["id", *(f"metric.{name}" for name in names)],
            [[record.id, *(record.metrics[name] for name in names)] for record in front],
        )
        write_csv(
            self.path / "hypervolume.csv",
            ["trial", "id", "seconds", "hypervolume"],
            [
                [number, record.id, round(record.ended, 3), volume]
                for number, (record, volume) in enumerate(
                    zip(records, volumes, strict=True), start=1
                )
            ],
        )
        summary = {
            **self._summary(study, objectives),
            "reference": reference,
            "hypervolume": volumes[-1] if volumes else 0.0,
            "seconds": seconds,
            "interrupted": interrupted,
        }
        write_atomically(self.path / "summary.json", json.dumps(summary, indent=2))
        return front

    def _summary(self, study: Study, objectives: Sequence[Objective]) -> dict[str, Any]:
        """What the report says at its head and foot, but for the hypervolume."""
        manifest = Manifest.load(self.path)
        measured = {name for record in self.ledger.records.values() for name in record.metrics}
        names = measured_names(study)
        return {
            "name": study.name,
            "trustsweep_version": VERSION,
            "code": list(dict.fromkeys(r.code for r in self.ledger.records.values() if r.code)),
            "objectives": [{"name": o.name, "direction": o.direction} for o in objectives],
            "counts": {state.value: len(self.ledger.of(state)) for state in State},
            "sessions": len(self.ledger.sessions),
            "cost": _total_cost(self.ledger),
            "seeds": study.repeat_seeds(),
            "references": _reference_ids(study, manifest),
            "data": {
                "name": manifest.name,
                "fingerprint": manifest.fingerprint,
                "image_shape": manifest.image_shape,
                "split_counts": manifest.split_counts,
                "licence": manifest.licence,
                "citation": manifest.citation,
            },
            "metric_info": {name: _info(name) for name in names if name in measured},
        }


def identifier(study: Study, manifest: Manifest) -> Callable[[Mapping[str, Any]], str]:
    """What names a trial of this study by its config; see `trial_id`.

    Of a file that the network starts from (`encoder`), its content counts, not its name.
    """
    code = code_revision()
    # What judges the front in the end changes no trial.
    evaluation = study.evaluation.model_dump(mode="json", exclude={"final"})

    def identify(config: Mapping[str, Any]) -> str:
        if config.get("encoder"):
            config = {**config, "encoder": _content(str(config["encoder"]))}
        return trial_id(config, manifest.fingerprint, code, evaluation)

    return identify


@cache
def _content(file: str) -> str:
    """The digest of a file; its name where it is not there, as on a machine that only reports."""
    try:
        with Path(file).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return file


def is_feasible(record: Record, constraints: Sequence[Constraint]) -> bool:
    """Whether a completed trial keeps every bound; a figure that it lacks keeps none."""
    # Any comparison with NaN is false.
    return all(c.violation(record.metrics.get(c.metric, math.nan)) <= 0 for c in constraints)


def values_of(record: Record, objectives: Sequence[Objective]) -> list[float]:
    """A completed trial's place in the space of objectives."""
    return [record.metrics[o.name] for o in objectives]


def _feasible(ledger: Ledger, constraints: Sequence[Constraint]) -> list[Record]:
    return [r for r in ledger.of(State.COMPLETED, SEARCH) if is_feasible(r, constraints)]


def _values(records: Sequence[Record], objectives: Sequence[Objective]) -> list[list[float]]:
    return [values_of(record, objectives) for record in records]


def _reference_ids(study: Study, manifest: Manifest) -> dict[str, list[str]]:
    """The trials of each of the study's references under each seed, whatever else they are."""
    identify = identifier(study, manifest)
    return {
        name: [identify({**config, SEED: seed}) for seed in study.repeat_seeds()]
        for name, config in study.references().items()
    }


def _total_cost(ledger: Ledger) -> dict[str, float]:
    """What all trials took together; of memory, the most that one took."""
    known = [r.metrics for r in ledger.records.values() if COSTS.keys() <= r.metrics.keys()]
    peak = "cost.peak_memory"
    total = {name: math.fsum(m[name] for m in known) for name in COSTS if name != peak}
    return {**total, peak: max((m[peak] for m in known), default=0.0)}


def _reference(records: Sequence[Record], objectives: Sequence[Objective]) -> list[float]:
    """Where hypervolume is measured from; nowhere before a model is finished."""
    if not records:
        return []
    bounds = [(metric_info(o.name).low, metric_info(o.name).high) for o in objectives]
    directions = [o.direction for o in objectives]
    return list(reference_point(_values(records, objectives), directions, bounds))


def _hypervolumes(
    records: Sequence[Record], objectives: Sequence[Objective], reference: Sequence[float]
) -> list[float]:
    """Hypervolume after each record."""
    if not records:
        return []
    directions = [o.direction for o in objectives]
    return hypervolume_history(_values(records, objectives), directions, reference).tolist()


def _info(name: str) -> dict[str, Any]:
    info = metric_info(name)
    return {
        "direction": info.direction,
        "unit": info.unit,
        "meaning": info.meaning,
        # JSON has no infinity: an open end is null.
        "low": info.low if math.isfinite(info.low) else None,
        "high": info.high if math.isfinite(info.high) else None,
    }
