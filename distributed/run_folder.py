"""What a run folder says, read back from its files alone (no Ray, no torch)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from data_pipelines.errors import UserError
from data_pipelines.schema import Split
from distributed.front import Direction, Objective, pareto_mask
from distributed.ledger import SEARCH
from distributed.trivial import load_figures
from search_spaces.study import Constraint
from trainables.metrics.skill import triviality

Value = float | str
REQUIRED = ("id", "state", "reason", "epochs", "seconds")
#: The name of the full ensemble, as `trainables.attacks`, which needs torch, defines it.
FULL = "full"
#: What a model with a sign of masked gradients is called.
MASKED = "possible gradient masking"


@dataclass(frozen=True)
class Trial:
    """A row of `trials.csv`. A key or metric that the trial does not have is absent.

    Attributes:
        ended: Seconds from the beginning of the run to this trial's end; NaN where not recorded.
        stage: "search", or "seeds" for a model that is trained again under another seed.
        of: What a trial of the stage "seeds" repeats: the id of a front model, or the name
            of the baseline or a variant of it.
        dominated_by: For a trial that was stopped, the ids of those that leave it behind.
        code: Revision of the code that trained it; empty where it is not known.
    """

    id: str
    state: str
    reason: str
    epochs: float
    seconds: float
    config: dict[str, Value]
    metrics: dict[str, float]
    ended: float = math.nan
    stage: str = SEARCH
    of: str = ""
    dominated_by: tuple[str, ...] = ()
    code: str = ""


@dataclass(frozen=True)
class MetricInfo:
    """How to read a metric; `direction` is None where the run does not say."""

    direction: Direction | None = None
    unit: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What one model gave on the test split, and its arrays where they were kept.

    `trivial`, `triviality`, `selective`, `ood`, `weights`, `estimates`, `groups`, `attack` and
    `temperature` are as `distributed.judge` writes them; empty where a card has none.
    """

    id: str
    split: str
    metrics: dict[str, float]
    curves: dict[str, list[float]]
    reliability: dict[str, dict[str, list[float]]]
    panel: dict[str, np.ndarray]
    classes: list[str] = field(default_factory=list)
    trivial: dict[str, dict[str, float]] = field(default_factory=dict)
    triviality: str = ""
    selective: dict[str, Any] = field(default_factory=dict)
    ood: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    estimates: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    temperature: dict[str, Any] = field(default_factory=dict)

    @property
    def fully_attacked(self) -> bool:
        """Whether its figures under attack are those under the full ensemble."""
        return bool(self.attack) and self.attack["name"]["final"] == FULL

    @property
    def signs(self) -> dict[str, str]:
        """The signs of gradient masking that are set, each with its meaning."""
        return dict(self.attack.get("masking", {}).get("signs", {}))


@dataclass(frozen=True)
class Step:
    """A row of `hypervolume.csv`: the volume after so many finished trials.

    `seconds` is when the last of them ended, after the run began; NaN where not recorded.
    """

    trial: int
    id: str
    hypervolume: float
    seconds: float = math.nan


@dataclass(frozen=True)
class Run:
    """Everything that the report shows. `summary` is empty until the run has written one.

    `trivial` are the figures of the predictors that ignore the image: split, predictor, metric.
    """

    path: Path
    trials: list[Trial]
    summary: dict[str, Any]
    study: dict[str, Any]
    study_text: str
    stated_front: list[str] | None
    history: list[Step]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    trivial: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.summary.get("name") or self.study.get("name") or self.path.resolve().name)

    @cached_property
    def search(self) -> list[Trial]:
        """The trials of the search, without those that repeat a model under another seed."""
        return [t for t in self.trials if t.stage == SEARCH]

    @cached_property
    def completed(self) -> list[Trial]:
        """The trials of the search that ran to their end."""
        return [t for t in self.search if t.state == "completed"]

    @cached_property
    def stopped(self) -> list[Trial]:
        """The trials of the search that were stopped early."""
        return [t for t in self.search if t.state == "stopped"]

    @cached_property
    def objectives(self) -> list[Objective]:
        return [Objective(o["name"], o["direction"]) for o in self.summary.get("objectives", [])]

    @cached_property
    def metrics(self) -> dict[str, MetricInfo]:
        """Every metric that some trial has, objectives first."""
        stated: Mapping[str, Mapping[str, Any]] = self.summary.get("metric_info", {})
        names = [o.name for o in self.objectives]
        names += sorted({m for t in self.trials for m in t.metrics} - set(names))
        directions = {o.name: o.direction for o in self.objectives}
        return {
            name: MetricInfo(
                directions.get(name, stated.get(name, {}).get("direction")),
                stated.get(name, {}).get("unit") or "",
                stated.get(name, {}).get("meaning") or "",
            )
            for name in names
        }

    @cached_property
    def config_keys(self) -> list[str]:
        """Configuration keys in the order of the file's columns."""
        return list(dict.fromkeys(k for t in self.trials for k in t.config))

    @cached_property
    def constraints(self) -> list[Constraint]:
        """Raises `UserError` for a constraint that cannot be read."""
        try:
            return [Constraint.model_validate(c) for c in self.study.get("constraints") or []]
        except ValidationError as error:
            raise UserError(f"{self.path / 'study.yaml'}: unreadable `constraints`.") from error

    def feasible(self, trial: Trial) -> bool:
        """Whether the trial keeps the study's constraints; a missing metric keeps none."""
        return all(
            c.violation(trial.metrics.get(c.metric, math.nan)) <= 0 for c in self.constraints
        )

    @cached_property
    def front(self) -> list[Trial]:
        """The front's trials, from one end of the first objective to the other, worst first.

        `front.csv` decides; where it is absent, the completed trials that keep the constraints.
        """
        if not self.objectives:
            return []
        first, names = self.objectives[0], [o.name for o in self.objectives]
        pool = [t for t in self.completed if all(n in t.metrics for n in names)]
        if self.stated_front is not None:
            chosen = [t for t in pool if t.id in self.stated_front]
        else:
            pool = [t for t in pool if self.feasible(t)]
            values = [[t.metrics[n] for n in names] for t in pool]
            mask = pareto_mask(values, [o.direction for o in self.objectives])
            chosen = [t for t, member in zip(pool, mask, strict=True) if member]
        sign = 1 if first.direction == "max" else -1
        return sorted(chosen, key=lambda t: sign * t.metrics[first.name])

    @cached_property
    def remarks(self) -> dict[str, str]:
        """What is trivial about a completed trial of the search, on the validation split."""
        known = self.trivial.get(Split.VAL)
        told = {t.id: triviality(t.metrics, known) for t in self.completed}
        return {trial: remark for trial, remark in told.items() if remark}

    @cached_property
    def masked(self) -> dict[str, str]:
        """The judged models with a sign of gradient masking, and what the signs are."""
        told = {e.id: "; ".join(e.signs.values()) for e in self.evaluations.values()}
        return {model: f"{MASKED}: {signs}" for model, signs in told.items() if signs}

    @cached_property
    def warnings(self) -> dict[str, str]:
        """What to know of a model before its figures are believed, short: names of the signs."""
        named = {m: f"{MASKED} ({', '.join(self.evaluations[m].signs)})" for m in self.masked}
        both = (self.remarks, named)
        return {
            model: "; ".join(told[model] for told in both if model in told)
            for model in dict.fromkeys([*self.remarks, *named])
        }

    @cached_property
    def spotlight(self) -> list[Evaluation]:
        """Up to three evaluated models spread over the front: both ends and the middle."""
        shown = [self.evaluations[t.id] for t in self.front if t.id in self.evaluations]
        if len(shown) <= 3:
            return shown
        return [shown[0], shown[len(shown) // 2], shown[-1]]


def read_run(run: Path) -> Run:
    """Read a run folder. Raises `UserError` if it or `trials.csv` is missing, or a file broken."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder. Name a folder that a sweep has written.")
    table = run / "trials.csv"
    if not table.is_file():
        raise UserError(f"{run}: no trials.csv here, so this is no run folder of a sweep.")
    study = run / "study.yaml"
    study_text = study.read_text(encoding="utf-8") if study.is_file() else ""
    front = run / "front.csv"
    history = run / "hypervolume.csv"
    return Run(
        path=run,
        trials=_trials(table),
        summary=_json(run / "summary.json") if (run / "summary.json").is_file() else {},
        study=_yaml(study_text, study),
        study_text=study_text,
        stated_front=[row["id"] for row in _rows(front, ("id",))] if front.is_file() else None,
        history=_history(history) if history.is_file() else [],
        evaluations={e.id: e for e in map(_evaluation, sorted(run.glob("evaluation/*.json")))},
        trivial=load_figures(run),
    )


def _trials(path: Path) -> list[Trial]:
    rows = list(_rows(path, REQUIRED))
    keys = list(rows[0]) if rows else []
    configs = {k: k.removeprefix("config.") for k in keys if k.startswith("config.")}
    metrics = {k: k.removeprefix("metric.") for k in keys if k.startswith("metric.")}
    # A column is numeric only as a whole: "3" among names is a name.
    numeric = {k for k in configs if all(_is_number(r[k]) for r in rows if r[k])}
    trials = []
    for line, row in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        values = {name: _number(row[k], where, k) for k, name in metrics.items() if row[k]}
        trials.append(
            Trial(
                id=row["id"],
                state=row["state"],
                reason=row["reason"],
                epochs=_number(row["epochs"] or "0", where, "epochs"),
                seconds=_number(row["seconds"] or "0", where, "seconds"),
                config={
                    name: float(row[k]) if k in numeric else row[k]
                    for k, name in configs.items()
                    if row[k]
                },
                metrics={name: value for name, value in values.items() if math.isfinite(value)},
                ended=_number(row.get("ended") or "nan", where, "ended"),
                stage=row.get("stage") or SEARCH,
                of=row.get("of", ""),
                dominated_by=tuple(row.get("dominated_by", "").split()),
                code=row.get("code", ""),
            )
        )
    return trials


def _history(path: Path) -> list[Step]:
    steps = []
    for line, row in enumerate(_rows(path, ("trial", "id", "hypervolume")), start=2):
        where = f"{path}, line {line}"
        count = int(_number(row["trial"], where, "trial"))
        volume = _number(row["hypervolume"], where, "hypervolume")
        seconds = _number(row.get("seconds") or "nan", where, "seconds")
        steps.append(Step(count, row["id"], volume, seconds))
    return steps


def _evaluation(path: Path) -> Evaluation:
    raw = _json(path)
    if "id" not in raw:
        raise UserError(f"{path}: no `id` in this evaluation. Evaluate the front again.")
    arrays = path.with_suffix(".npz")
    panel: dict[str, np.ndarray] = {}
    if arrays.is_file():
        try:
            with np.load(arrays, allow_pickle=False) as stored:
                panel = {name: stored[name] for name in stored.files}
        except (ValueError, OSError) as error:
            raise UserError(f"{arrays}: unreadable arrays. Evaluate the front again.") from error
    return Evaluation(
        id=str(raw["id"]),
        split=str(raw.get("split", "test")),
        metrics=raw.get("metrics") or {},
        curves=raw.get("curves") or {},
        reliability=raw.get("reliability") or {},
        panel=panel,
        classes=[str(name) for name in raw.get("classes") or []],
        trivial=raw.get("trivial") or {},
        triviality=str(raw.get("triviality") or ""),
        selective=raw.get("selective") or {},
        ood=raw.get("ood") or {},
        weights=raw.get("weights") or {},
        estimates=raw.get("estimates") or {},
        groups=raw.get("groups") or {},
        attack=raw.get("attack") or {},
        temperature=raw.get("temperature") or {},
    )


def _rows(path: Path, required: Iterable[str]) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, restval="")
        missing = [c for c in required if c not in (reader.fieldnames or [])]
        if missing:
            raise UserError(f"{path}: no column {missing[0]!r}. Is this file whole?")
        yield from reader


def _json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Is this file whole?") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a JSON object.")
    return raw


def _yaml(text: str, path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a study is a mapping of keys.")
    return raw


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(text: str, where: str, column: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{where}: {column!r} holds {text!r}, not a number.") from error
