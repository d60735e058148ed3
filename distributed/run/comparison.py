"""The front's models under several seeds, compared with the study's baseline.

Works from a run folder alone. A model's repeats are the trials that train its configuration again
under another seed than those of the search: the seed that chose a model flatters it. Figures are
those of the test split where the models were evaluated on it, else the last validation figures of
the trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from trustsweep.distributed.run.exports import write_csv
from trustsweep.distributed.run.folder import COST_PREFIX, Run, is_feasible
from trustsweep.distributed.run.ledger import Record, State
from trustsweep.distributed.statistics.attainment import attainment_share, attainment_surfaces
from trustsweep.distributed.statistics.front import Direction, Floats, Objective
from trustsweep.distributed.statistics.inference import (
    PairedTest,
    Summary,
    holm,
    paired_t_test,
    summarise,
)
from trustsweep.search_spaces.study import BASELINE, SEED

COMPARISON, ATTAINMENT = "comparison.csv", "attainment.csv"
#: Below this adjusted p-value a difference is called one.
ALPHA = 0.05
#: Pairs below which nothing is tested: two leave a t-test one degree of freedom.
LEAST_SEEDS = 3

Verdict: TypeAlias = Literal[
    "better",
    "worse",
    "no difference shown",
    "tie",
    "constant difference",
    "too few seeds to test",
    "not tested",
]


@dataclass(frozen=True)
class SeededModel:
    """A model of the front, the baseline or a variant of it (by name), with its trials by seed."""

    id: str
    trials: dict[int, Record]

    def finished(self, seed: int) -> Record | None:
        """The trial under that seed, if it ran to its end."""
        trial = self.trials.get(seed)
        return trial if trial is not None and trial.state is State.COMPLETED else None


@dataclass(frozen=True)
class ComparisonRow:
    """One model of the front, or variant of the baseline, on one objective.

    Attributes:
        split: Where the figures were measured; empty for costs.
        summary, baseline: Mean and deviation over the seeds; None without a baseline.
        test: Of model minus baseline, paired by seed; None without a baseline.
        left_out: Seeds of the study that gave no pair (without a baseline: no figure).
        p_holm: Adjusted over all models and objectives of the comparison.
        verdict: At `ALPHA`, in the objective's own direction. "tie": every pair is equal;
            "constant difference": every pair differs by the same, which no t-test can handle.
    """

    model: str
    objective: Objective
    split: str
    summary: Summary
    baseline: Summary | None
    test: PairedTest | None
    left_out: int
    p_holm: float
    verdict: Verdict


@dataclass(frozen=True)
class Repeats:
    """The repeats of a run: models of the front and baseline under several seeds.

    Attributes:
        run: Where they were read.
        models: The front's, in the front's order.
        baseline: None if the study names none or it has not been trained yet.
        variants: Those of the baseline that have been trained.
        seeds: Those that every model should have; no trial of the search that stands on the front
            has one of them.
    """

    run: Run
    models: list[SeededModel]
    baseline: SeededModel | None
    variants: list[SeededModel]
    seeds: list[int]

    @property
    def repeated(self) -> bool:
        """Whether any model has been trained under another seed than that which chose it."""
        again = (seed in model.trials for model in self.models for seed in self.seeds)
        return any(again) or self.baseline is not None

    @property
    def untuned(self) -> str:
        """A caveat where tuned models are compared with an untuned baseline; else empty."""
        tried = len(self.run.search)
        if self.baseline is None or tried < 2:
            return ""
        return (
            f"The front's models are the best of a search of {tried} trials; the baseline has the "
            "parameters that the study gives it and was not tuned. The differences therefore "
            "include the effect of tuning."
        )

    def split(self, metric: str) -> str:
        """Where a metric's figures come from; empty for what is no figure of a split."""
        if metric.startswith(COST_PREFIX):
            return ""
        return self._splits.get(metric, "val")

    def value(self, trial: Record | None, metric: str) -> float:
        """A trial's figure on the metric's split; NaN where it has none."""
        if trial is None:
            return math.nan
        if metric not in self._splits:
            return trial.metrics.get(metric, math.nan)
        card = self.run.cards.get(trial.id)
        return math.nan if card is None else card.metrics.get(metric, math.nan)

    def summary(self, model: SeededModel, metric: str) -> Summary:
        """Mean and deviation of a model's finished trials under `seeds`."""
        return summarise([self.value(model.finished(seed), metric) for seed in self.seeds])

    @cached_property
    def rows(self) -> list[ComparisonRow]:
        """Every model of the front and every variant on every objective."""
        compared = [*self.models, *self.variants]
        pairs = [(model, objective) for model in compared for objective in self.run.objectives]
        tests = [self._test(model, objective.name) for model, objective in pairs]
        adjusted = holm([_p(test) for test in tests])
        return [
            self._row(model, objective, test, float(p))
            for (model, objective), test, p in zip(pairs, tests, adjusted, strict=True)
        ]

    @cached_property
    def complete_seeds(self) -> list[int]:
        """The seeds under which every model of the front has ended and been evaluated on test."""
        return [seed for seed in self.seeds if all(self._settled(m, seed) for m in self.models)]

    def front(self, seed: int) -> dict[str, tuple[float, ...]]:
        """The objectives of the front's models under a seed, by model.

        One that failed under that seed, or breaks a constraint there, is no part of it.
        """
        trials = {model.id: model.finished(seed) for model in self.models}
        return {
            model: tuple(self.value(trial, o.name) for o in self.run.objectives)
            for model, trial in trials.items()
            if trial is not None and self._feasible(trial)
        }

    @cached_property
    def fronts(self) -> list[list[tuple[float, ...]]]:
        """The values of `front` under each of `complete_seeds`."""
        return [list(self.front(seed).values()) for seed in self.complete_seeds]

    @property
    def directions(self) -> list[Direction]:
        return [o.direction for o in self.run.objectives]

    @cached_property
    def surfaces(self) -> list[Floats]:
        """The attainment surfaces of `fronts`; none unless there are two objectives."""
        if len(self.run.objectives) != 2:
            return []
        return attainment_surfaces(self.fronts, self.directions)

    @cached_property
    def _splits(self) -> dict[str, str]:
        """The split of each metric in the evaluation cards of these models."""
        models = [*self.models, *self.variants, *([self.baseline] if self.baseline else [])]
        ids = [t.id for model in models for t in model.trials.values()]
        cards = [self.run.cards[i] for i in ids if i in self.run.cards]
        return {metric: card.split for card in cards for metric in card.metrics}

    def _test(self, model: SeededModel, metric: str) -> PairedTest | None:
        if self.baseline is None:
            return None
        mine, theirs = (
            [self.value(m.finished(seed), metric) for seed in self.seeds]
            for m in (model, self.baseline)
        )
        return paired_t_test(mine, theirs)

    def _row(
        self, model: SeededModel, objective: Objective, test: PairedTest | None, p: float
    ) -> ComparisonRow:
        name, baseline = objective.name, self.baseline
        summary = self.summary(model, name)
        return ComparisonRow(
            model=model.id,
            objective=objective,
            split=self.split(name),
            summary=summary,
            baseline=None if baseline is None else self.summary(baseline, name),
            test=test,
            left_out=max(0, len(self.seeds) - (summary.n if test is None else test.n)),
            p_holm=p,
            verdict=_verdict(test, p, objective.direction),
        )

    def _settled(self, model: SeededModel, seed: int) -> bool:
        trial = model.trials.get(seed)
        if trial is None or trial.state is State.RUNNING:
            return False
        failed = trial.state is State.FAILED
        return failed or not self._splits or trial.id in self.run.cards

    def _feasible(self, trial: Record) -> bool:
        """By the figures of `value`, not those that the trial was searched by."""
        bounded = {c.metric: self.value(trial, c.metric) for c in self.run.constraints}
        return is_feasible(bounded, self.run.constraints)


def repeats(run: Run) -> Repeats:
    """Gather the repeats of a run's front, of its baseline and of the variants.

    A repeat that the search had trained already has no record of its own, so that the
    configuration without its seed decides, and not what a record is of. Stopped trials are none.
    """
    alike: dict[frozenset[tuple[str, Any]], dict[int, Record]] = {}
    for trial in run.trials:
        if trial.state is not State.STOPPED:
            alike.setdefault(_identity(trial.config), {})[_seed(trial)] = trial
    models = [SeededModel(t.id, alike[_identity(t.config)]) for t in run.front]
    references = {
        name: SeededModel(name, alike[_identity(config)])
        for name, config in run.study.references().items()
        if _identity(config) in alike
    }
    baseline = references.pop(BASELINE, None)
    chosen_under = {_seed(trial) for trial in run.front}
    seeds = [seed for seed in run.study.repeat_seeds() if seed not in chosen_under]
    return Repeats(run, models, baseline, list(references.values()), seeds)


def write_comparison(results: Repeats) -> None:
    """Write `comparison.csv` and `attainment.csv` into the run's folder.

    Neither is left there while no model has been repeated.
    """
    folder = results.run.path
    if not results.repeated:
        for name in (COMPARISON, ATTAINMENT):
            (folder / name).unlink(missing_ok=True)
        return
    records = [_record(row) for row in results.rows]
    header = list(records[0]) if records else []
    write_csv(folder / COMPARISON, header, [list(record.values()) for record in records])
    names = [o.name for o in results.run.objectives]
    if len(names) == 2:
        header, lines = ["attained_by", "seeds", *names], _corners(results)
    else:
        header, lines = ["seed", "share_of_seeds", *names], _points(results)
    write_csv(folder / ATTAINMENT, header, lines)


def _identity(config: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset((k, v) for k, v in config.items() if k != SEED)


def _seed(trial: Record) -> int:
    return int(trial.config.get(SEED, 0))


def _p(test: PairedTest | None) -> float:
    return math.nan if test is None or test.n < LEAST_SEEDS else test.p


def _verdict(test: PairedTest | None, p_holm: float, direction: Direction) -> Verdict:
    if test is None:
        return "not tested"
    if test.n < LEAST_SEEDS:
        return "too few seeds to test"
    if test.refused == "constant difference":
        return "constant difference"
    if test.difference == test.low == test.high == 0.0:
        return "tie"
    if p_holm >= ALPHA:
        return "no difference shown"
    return "better" if (test.difference > 0) == (direction == "max") else "worse"


def _record(row: ComparisonRow) -> dict[str, Any]:
    """A line of `comparison.csv`; what does not exist is empty."""
    test, baseline = row.test, row.baseline
    record: dict[str, Any] = {
        "model": row.model,
        "objective": row.objective.name,
        "direction": row.objective.direction,
        "split": row.split,
        "n": row.summary.n,
        "mean": row.summary.mean,
        "sd": row.summary.std,
        "baseline_n": baseline.n if baseline else math.nan,
        "baseline_mean": baseline.mean if baseline else math.nan,
        "baseline_sd": baseline.std if baseline else math.nan,
        "pairs": test.n if test else math.nan,
        "left_out": row.left_out,
        "difference": test.difference if test else math.nan,
        "low": test.low if test else math.nan,
        "high": test.high if test else math.nan,
        "t": test.t if test else math.nan,
        "p": test.p if test else math.nan,
        "p_holm": row.p_holm,
        "effect_size": test.effect_size if test else math.nan,
        "effect_size_corrected": test.corrected_effect_size if test else math.nan,
        "verdict": row.verdict,
    }
    return {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}


def _corners(results: Repeats) -> list[list[Any]]:
    """`attainment.csv` of two objectives: the corners of each staircase."""
    return [
        [k, len(results.surfaces), *corner]
        for k, surface in enumerate(results.surfaces, start=1)
        for corner in surface.tolist()
    ]


def _points(results: Repeats) -> list[list[Any]]:
    """`attainment.csv` of any other number: each seed's models, and how many seeds attain them."""
    return [
        [seed, share, *point]
        for seed, front in zip(results.complete_seeds, results.fronts, strict=True)
        for share, point in zip(
            attainment_share(front, results.fronts, results.directions).tolist(),
            front,
            strict=True,
        )
    ]
