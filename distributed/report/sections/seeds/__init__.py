"""The front under several seeds, as lines to draw and as sentences."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.thinning import MOST_MODELS, shown_metrics
from trustsweep.distributed.report.wording import plural
from trustsweep.distributed.run.comparison import (
    ALPHA,
    ATTAINMENT,
    COMPARISON,
    Repeats,
    SeededModel,
    Verdict,
    repeats,
    write_comparison,
)
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.optimism import SPLITS
from trustsweep.distributed.statistics.front import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: How far a staircase runs on beyond the outermost models, as a share of their extent.
MARGIN = 0.06
#: Verdicts as they follow a number of models.
COUNTED: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "no difference shown": "with no difference shown",
    "tie": "tied",
    "constant difference": "with the same difference under every seed, which cannot be tested",
    "too few seeds to test": "with too few seeds to test",
}


@dataclass(frozen=True)
class Stairs:
    """The edge of what at least `seeds` seeds attain, drawn from end to end of the models' box."""

    seeds: int
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class SeedPoints:
    """The front's models under one seed: their ids and their two objectives."""

    seed: int
    ids: list[str]
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Seeds:
    """The front under other seeds.

    Attributes:
        stairs, points: Its attainment surfaces, and the models of each seed.
        metrics, models: Rows and columns of the table of every metric.
        comparison, attainment: Names of the tables in the run folder.
    """

    repeats: Repeats
    stairs: list[Stairs]
    points: list[SeedPoints]
    findings: list[str]
    metrics: list[str]
    models: list[SeededModel]
    comparison: str = COMPARISON
    attainment: str = ATTAINMENT


class SeedsSection(Section[Seeds]):
    figure = "front_over_seeds"

    def gather(self, run: Run) -> Seeds:
        results = repeats(run)
        return Seeds(
            repeats=results,
            stairs=staircases(results) if results.repeated else [],
            points=seed_points(results) if results.repeated else [],
            findings=findings(results),
            metrics=[name for name in shown_metrics(run) if "@" not in name],
            models=[
                *([results.baseline] if results.baseline else []),
                *results.models[:MOST_MODELS],
            ],
        )

    def payload(self, run: Run, data: Seeds) -> dict[str, Any]:
        surfaces = len(data.repeats.surfaces)
        return {
            "stairs": [dataclasses.asdict(s) for s in data.stairs],
            "seedPoints": [dataclasses.asdict(p) for p in data.points],
            "seedSplits": {
                o.name: SPLITS.get(data.repeats.split(o.name), "") for o in run.objectives
            },
            "surfaces": surfaces,
            "middle": middle(surfaces),
        }

    def draw(self, run: Run, data: Seeds) -> Figure | None:
        from trustsweep.distributed.report.sections.seeds.figure import draw

        return draw(run, data)

    def write(self, data: Seeds) -> None:
        write_comparison(data.repeats)


def middle(surfaces: int) -> int:
    """The number of seeds whose surface is the median: half of them, rounded up."""
    return (surfaces + 1) // 2


def staircases(results: Repeats) -> list[Stairs]:
    """The attainment surfaces that are not empty; none unless there are two objectives."""
    points = [point for surface in results.surfaces for point in surface.tolist()]
    points += [point for front in results.fronts for point in front]
    if not results.surfaces or not points:
        return []
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    room = MARGIN * np.where(high > low, high - low, np.maximum(np.abs(high), 1e-3))
    # Where both objectives are at their worst: each staircase begins and ends on this corner's box.
    worst = np.where([d == "max" for d in results.directions], low - room, high + room)
    return [
        Stairs(k, *_edge(surface, worst, rising=results.directions[0] == "max"))
        for k, surface in enumerate(results.surfaces, start=1)
        if len(surface)
    ]


def seed_points(results: Repeats) -> list[SeedPoints]:
    """The models of each seed that the staircases are made of."""
    if len(results.run.objectives) != 2:
        return []
    points = []
    for seed in results.complete_seeds:
        front = results.front(seed)
        x, y = ([point[axis] for point in front.values()] for axis in (0, 1))
        points.append(SeedPoints(seed, list(front), x, y))
    return points


def findings(results: Repeats) -> list[str]:
    """The test results in sentences, including ties and negative results."""
    if results.baseline is None:
        return [
            "Nothing is tested: the run has no baseline. Name one in the study, such as "
            "`baseline: {method: unet}`, and go on with the sweep."
        ]
    sentences = [
        f"{plural(len(results.rows), 'comparison')} with the baseline, paired by seed, at "
        f"α = {ALPHA:g} after Holm's correction."
    ]
    for objective in results.run.objectives:
        counts = Counter(r.verdict for r in results.rows if r.objective == objective)
        verdicts = ", ".join(f"{counts[v]} {words}" for v, words in COUNTED.items() if counts[v])
        tested = counts.total() > counts["too few seeds to test"] + counts["constant difference"]
        none = "; none is shown to be better" if tested else ""
        sentences.append(f"{objective.name}: {verdicts}{'' if counts['better'] else none}.")
    if results.untuned:
        sentences.append(results.untuned)
    if any(row.verdict == "no difference shown" for row in results.rows):
        sentences.append("No difference shown does not mean that there is none.")
    if missing := sum(row.left_out for row in results.rows):
        sentences.append(f"{plural(missing, 'pair')} left out because a metric is missing.")
    return sentences


def _edge(surface: Floats, worst: Floats, *, rising: bool) -> tuple[list[float], list[float]]:
    """Corners to a line of level and upright pieces; `rising` where more of the first is better."""
    x, y = surface.T
    if rising:  # a corner attains what lies to its left
        across, up = np.concatenate([[worst[0]], np.repeat(x, 2)]), np.repeat(y, 2)
        up = np.concatenate([up, [worst[1]]])
    else:
        across = np.concatenate([np.repeat(x, 2), [worst[0]]])
        up = np.concatenate([[worst[1]], np.repeat(y, 2)])
    return across.tolist(), up.tolist()
