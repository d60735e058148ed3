"""A run: the study and results of a sweep, read from its folder alone.

The one reading of a run folder that sweep, report, comparison of seeds and terminal share. It needs
no Ray, no torch and no Optuna, and writes nothing but what begins a run; tables for users are
written by `trustsweep.distributed.run.exports`, and never read back.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from trustsweep.data_pipelines import plugins
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import MANIFEST_NAME, Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.distributed.run.evaluation_card import EvaluationCard, read_cards
from trustsweep.distributed.run.ledger import SEARCH, Ledger, Record, State, trial_id
from trustsweep.distributed.run.trivial import load_figures
from trustsweep.distributed.statistics.front import (
    Archive,
    Objective,
    hypervolume_history,
    reference_point,
)
from trustsweep.distributed.version import code_revision
from trustsweep.search_spaces.study import Constraint, Study, load
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.metrics.catalog import MetricInfo, metric_info
from trustsweep.trainables.metrics.skill import triviality

STUDY = "study.yaml"
#: Copies of the plug-in files that the run was made with.
PLUGINS = "plugins"
#: The remark on a model with a sign of gradient masking.
MASKED = "possible gradient masking"
#: Prefix of the cost metrics of a trial.
COST_PREFIX = "cost."
#: Costs that do not add up: of these the largest counts.
PEAKS = ("cost.peak_memory",)


def is_feasible(metrics: Mapping[str, float], constraints: Sequence[Constraint]) -> bool:
    """Whether a model keeps every bound; a figure that it lacks keeps none."""
    # Any comparison with NaN is false.
    return all(c.violation(metrics.get(c.metric, math.nan)) <= 0 for c in constraints)


def cost_names(trials: Iterable[Record]) -> list[str]:
    """Every cost that some trial which has ended has, in the order in which trials name them."""
    ended = [t for t in trials if t.state is not State.RUNNING]
    return list(dict.fromkeys(m for t in ended for m in t.metrics if m.startswith(COST_PREFIX)))


def total_cost(name: str, trials: Iterable[Record]) -> float:
    """The total cost of the trials, the largest for a peak; NaN where none has this cost."""
    spent = [trial.metrics[name] for trial in trials if name in trial.metrics]
    if not spent:
        return math.nan
    return max(spent) if name in PEAKS else math.fsum(spent)


def evaluation_plan(study: Study) -> EvaluationPlan:
    """The evaluation plan of each trial of this study."""
    settings = study.evaluation
    return EvaluationPlan(
        epsilons=tuple(settings.epsilons),
        attack=settings.attack,
        attack_steps=settings.attack_steps,
        restarts=settings.restarts,
        norm=settings.norm,
        corruptions=corruption_cells(study),
        suite=settings.suite,
        conditions=tuple(settings.conditions),
    )


def corruption_cells(study: Study) -> tuple[tuple[str, int], ...]:
    """Every (corruption, severity) of the study's evaluation."""
    settings = study.evaluation
    return tuple((name, level) for name in settings.corruptions for level in settings.severities)


class Front:
    """The feasible completed trials of a search that no other such trial beats.

    Kept up to date at O(front) a trial.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        records: Iterable[Record] = (),
    ) -> None:
        self._objectives = objectives
        self._constraints = constraints
        self._archive: Archive[Record] = Archive([o.direction for o in objectives])
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take in a trial, whatever became of it."""
        searched = record.state is State.COMPLETED and record.stage == SEARCH
        if searched and is_feasible(record.metrics, self._constraints):
            self._archive.add(record, values_of(record, self._objectives))

    @property
    def records(self) -> list[Record]:
        """From one end of the first objective to the other, worst first."""
        first = self._objectives[0]
        sign = 1 if first.direction == "max" else -1
        return sorted(self._archive.keys, key=lambda r: sign * r.metrics[first.name])


def values_of(record: Record, objectives: Sequence[Objective]) -> list[float]:
    """A trial's place in the space of objectives; NaN for one that it lacks."""
    return [record.metrics.get(o.name, math.nan) for o in objectives]


@dataclass(frozen=True)
class Step:
    """The hypervolume after so many finished trials of the search.

    `seconds` is when the last of them ended, after the run began.
    """

    trial: int
    id: str
    hypervolume: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A run folder. What is read or computed from it is cached.

    While a sweep writes to the folder, each value is as it was when first read, except `ledger`,
    which is live in the process that writes it; `reread` sees the rest.
    """

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
        """An existing folder, whether its sweep is done, going on or was killed.

        Raises `UserError` if there is no run in it, or one that another version wrote.
        """
        if not (path / STUDY).is_file():
            raise UserError(f"{path}: no run here (no {STUDY}). Name a folder that a sweep made.")
        return cls(path.resolve(), Ledger(path))

    def reread(self) -> Run:
        """The same run with nothing kept; the ledger and its lock are shared."""
        return Run(self.path, self.ledger)

    def write_study(self, study: Study, manifest: Manifest) -> None:
        """Write the study with every default, its space, and the data's manifest."""
        write_atomically(self.path / MANIFEST_NAME, manifest.to_json())
        space = json.dumps(study.search_space().to_dict(), indent=2)
        write_atomically(self.path / "space.json", space)
        if study.data is not None:
            # The run may be taken up from another folder.
            study = study.model_copy(update={"data": str(Folder(study.data).resolved())})
        # Last: with it, the folder is a run.
        write_atomically(self.path / STUDY, study.to_yaml())

    def keep(self, plugin_files: Iterable[Path]) -> list[Path]:
        """Copies of plug-in files within the run, where every node sees them.

        For the workers of a sweep, and as a record of what its models are; nothing else runs them.
        Raises OSError if they cannot be written.
        """
        copies = {self.path / PLUGINS / path.name: path for path in plugin_files}
        for copy, path in copies.items():
            copy.parent.mkdir(exist_ok=True)
            write_atomically(copy, path.read_text(encoding="utf-8"))
        return list(copies)

    # Where things lie.

    @property
    def checkpoints(self) -> Path:
        """One folder per trial: its model and card."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """The evaluation cards, with arrays and tables of samples beside them."""
        return self.path / "evaluation"

    @property
    def ray(self) -> Path:
        """Ray's own bookkeeping; nothing here is read back."""
        return self.path / "ray"

    @property
    def resume_line(self) -> str:
        """The command that resumes this run."""
        return f"trustsweep sweep --resume {shlex.quote(str(self.path))}"

    # What the files say.

    @cached_property
    def study(self) -> Study:
        """The study, resolved.

        Raises `UserError` for a study that cannot be read, or where plug-ins are missing.
        """
        kept = sorted(path for path in (self.path / PLUGINS).glob("*.py"))
        loaded = {path.name for path in plugins.files()}
        if missing := [path for path in kept if path.name not in loaded]:
            named = " ".join(f"--plugin {shlex.quote(str(path))}" for path in missing)
            raise UserError(f"{self.path}: was made with plug-ins. Name them: {named}")
        return load(self.path / STUDY)

    @cached_property
    def plan(self) -> EvaluationPlan:
        """The conditions that its models are evaluated under."""
        return evaluation_plan(self.study)

    @property
    def study_text(self) -> str:
        return (self.path / STUDY).read_text(encoding="utf-8")

    @cached_property
    def manifest(self) -> Manifest:
        """Of the data that the run was begun with. Raises `UserError` for an unreadable one."""
        path = self.path / MANIFEST_NAME
        try:
            return Manifest.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}: unreadable manifest ({error}). Restore it from the prepared data set "
                "that the run was begun with."
            ) from error

    @cached_property
    def cards(self) -> dict[str, EvaluationCard]:
        """Of the evaluated models, by trial. Raises `UserError` for a card of another version."""
        return read_cards(self.evaluation)

    @cached_property
    def trivial(self) -> dict[str, dict[str, dict[str, float]]]:
        """Figures of the predictors that ignore the image: split, predictor, metric."""
        return load_figures(self.path)

    @cached_property
    def trials(self) -> list[Record]:
        """Every trial, in the order in which they ended; a metric that is no number is left out."""
        return [_with_numbers(record) for record in self.ledger.records.values()]

    @property
    def code(self) -> list[str]:
        """The revisions of the code that trained the trials."""
        return list(dict.fromkeys(t.code for t in self.trials if t.code))

    @property
    def version(self) -> str:
        """The trustsweep that went on with the run last; empty before it began."""
        return str(self.ledger.sessions[-1].get("version", "")) if self.ledger.sessions else ""

    @property
    def seconds(self) -> float:
        """Seconds of all sessions; while unknown, until the last trial ended."""
        ended = max((t.ended for t in self.trials), default=0.0)
        return max(ended, self.ledger.closed["seconds"]) if self.ledger.closed else ended

    @property
    def interrupted(self) -> str | None:
        """Why the last session was interrupted, if it was and could record it."""
        return self.ledger.closed["interrupted"] if self.ledger.closed else None

    @property
    def finished(self) -> bool:
        """Whether the sweep came to its end."""
        return self.ledger.closed is not None and not self.interrupted

    # What follows from them.

    @cached_property
    def objectives(self) -> list[Objective]:
        """The study's, each with the direction of its metric."""
        return objectives_of(self.study)

    @property
    def constraints(self) -> list[Constraint]:
        return self.study.constraints

    @cached_property
    def search(self) -> list[Record]:
        """The trials of the search, without those that repeat a model under another seed."""
        return [t for t in self.trials if t.stage == SEARCH]

    @cached_property
    def completed(self) -> list[Record]:
        """The trials of the search that ran to their end."""
        return [t for t in self.search if t.state is State.COMPLETED]

    @cached_property
    def stopped(self) -> list[Record]:
        """The trials of the search that were stopped early."""
        return [t for t in self.search if t.state is State.STOPPED]

    def feasible(self, trial: Record) -> bool:
        """Whether the trial keeps the study's constraints; a missing metric keeps none."""
        return is_feasible(trial.metrics, self.constraints)

    @cached_property
    def front(self) -> list[Record]:
        """See `Front`; from one end of the first objective to the other, worst first."""
        return Front(self.objectives, self.constraints, self.completed).records

    @cached_property
    def reference(self) -> list[float]:
        """Where hypervolume is measured from, a number per objective; none without a model."""
        values = self._feasible_values
        if not values:
            return []
        bounds = [(metric_info(o.name).low, metric_info(o.name).high) for o in self.objectives]
        return list(reference_point(values, [o.direction for o in self.objectives], bounds))

    @cached_property
    def history(self) -> list[Step]:
        """The hypervolume after each feasible completed trial of the search."""
        trials = [t for t in self.completed if self.feasible(t)]
        directions = [o.direction for o in self.objectives]
        if not trials:
            return []
        volumes = hypervolume_history(self._feasible_values, directions, self.reference).tolist()
        return [
            Step(number, trial.id, volume, trial.ended)
            for number, (trial, volume) in enumerate(zip(trials, volumes, strict=True), start=1)
        ]

    @property
    def hypervolume(self) -> float:
        return self.history[-1].hypervolume if self.history else 0.0

    @cached_property
    def metrics(self) -> dict[str, MetricInfo]:
        """Every metric that some trial has, objectives first."""
        names = [o.name for o in self.objectives]
        names += sorted({m for t in self.trials for m in t.metrics} - set(names))
        return {name: _info(name) for name in names}

    @cached_property
    def config_keys(self) -> list[str]:
        """Configuration keys, in the order of their first appearance."""
        return list(dict.fromkeys(k for t in self.trials for k in t.config))

    @cached_property
    def remarks(self) -> dict[str, str]:
        """Why a completed trial of the search is trivial, on the validation split, by trial."""
        known = self.trivial.get(Split.VAL)
        remarks = {t.id: triviality(t.metrics, known) for t in self.completed}
        return {trial: remark for trial, remark in remarks.items() if remark}

    @cached_property
    def masked(self) -> dict[str, str]:
        """The evaluated models with a sign of gradient masking, and what the signs are."""
        signs = {card.id: "; ".join(card.signs.values()) for card in self.cards.values()}
        return {model: f"{MASKED}: {meanings}" for model, meanings in signs.items() if meanings}

    @cached_property
    def warnings(self) -> dict[str, str]:
        """Short caveats on a model's metrics, by trial: trivial, or signs of gradient masking."""
        named = {m: f"{MASKED} ({', '.join(self.cards[m].signs)})" for m in self.masked}
        both = (self.remarks, named)
        return {
            model: "; ".join(known[model] for known in both if model in known)
            for model in dict.fromkeys([*self.remarks, *named])
        }

    @cached_property
    def front_cards(self) -> list[EvaluationCard]:
        """The cards of the front's models that are evaluated on test, in the front's order."""
        return [self.cards[t.id] for t in self.front if t.id in self.cards]

    @cached_property
    def spotlight(self) -> list[EvaluationCard]:
        """The cards of up to three models spread over the front: both ends and the middle."""
        cards = self.front_cards
        return cards if len(cards) <= 3 else [cards[0], cards[len(cards) // 2], cards[-1]]

    @cached_property
    def _feasible_values(self) -> list[list[float]]:
        return [values_of(t, self.objectives) for t in self.completed if self.feasible(t)]


def objectives_of(study: Study) -> list[Objective]:
    """A study's objectives, each with the direction of its metric."""
    infos = [metric_info(name) for name in study.objectives]
    return [Objective(info.name, info.direction) for info in infos if info.direction]


def identifier(study: Study, manifest: Manifest) -> Callable[[Mapping[str, Any]], str]:
    """Maps a config of this study to its trial id; see `trial_id`.

    For an initial `encoder` file, its content counts, not its name.
    """
    code = code_revision()
    # The attack of the final evaluation changes no trial.
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


def _with_numbers(record: Record) -> Record:
    if all(map(math.isfinite, record.metrics.values())):
        return record
    metrics = {name: value for name, value in record.metrics.items() if math.isfinite(value)}
    return replace(record, metrics=metrics)


def _info(name: str) -> MetricInfo:
    """Info of a metric; only its name if unknown, as of a plug-in that is not installed."""
    try:
        return metric_info(name)
    except UserError:
        return MetricInfo(name, None, -math.inf, math.inf, "", "", {})
