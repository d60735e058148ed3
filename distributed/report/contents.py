"""What the page and the PNG figures are both drawn from, worked out once."""

from __future__ import annotations

from dataclasses import dataclass

from distributed.report.abstention import Abstention, abstentions
from distributed.report.attacks import Attacks, attacks
from distributed.report.beside import Beside, beside
from distributed.report.class_panel import ClassPanel, class_panel
from distributed.report.costs import Cost, Growth, costs, growth
from distributed.report.importance import Importances, importances
from distributed.report.panel import Panel, panel
from distributed.report.parallel import Axis, Line, parallel
from distributed.report.seeds import SeedPoints, Stairs, seed_points, staircases
from distributed.report.severities import Worsening, worsenings
from distributed.report.stopping import Stops, stops
from distributed.report.weighing import Weighing, weighings
from distributed.run.comparison import Repeats, repeats
from distributed.run.folder import Run
from distributed.run.optimism import Choice, choices


@dataclass(frozen=True)
class Contents:
    """A run and what is told of it.

    Attributes:
        repeats: The front under other seeds.
        stairs, points: Its attainment surfaces, and the models of each seed.
        stops: What early stopping did.
        costs, growth: What was spent, and how the hypervolume grew with it.
        shares: Importances of the parameters; None with too few trials.
        axes, lines: Of the parallel coordinates.
        panels, class_panels: Test images, of segmentations or of classes.
        abstentions: What the front's models are right about where they may abstain.
        beside: The front beside predictors that ignore the image; None where they are not known.
        attacks: What robustness rests on; None where nothing was attacked.
        worsenings: What each method loses as a corruption gets worse.
        weighings: Which modality carried each prediction.
        choices: The front's models on the test split, beside what they were chosen by.
    """

    run: Run
    repeats: Repeats
    stairs: list[Stairs]
    points: list[SeedPoints]
    stops: Stops
    costs: list[Cost]
    growth: Growth
    shares: Importances | None
    axes: list[Axis]
    lines: list[Line]
    panels: list[Panel]
    class_panels: list[ClassPanel]
    abstentions: list[Abstention]
    beside: Beside | None
    attacks: Attacks | None
    worsenings: list[Worsening]
    weighings: list[Weighing]
    choices: list[Choice]


def gather(run: Run) -> Contents:
    """Read and work out; nothing is written. Raises `UserError` for broken files."""
    axes, lines = parallel(run)
    found = repeats(run)
    return Contents(
        run=run,
        repeats=found,
        stairs=staircases(found) if found.repeated else [],
        points=seed_points(found) if found.repeated else [],
        stops=stops(run),
        costs=costs(run),
        growth=growth(run),
        shares=importances(run),
        axes=axes,
        lines=lines,
        panels=[p for p in map(panel, run.spotlight) if p is not None],
        class_panels=[p for p in map(class_panel, run.spotlight) if p is not None],
        abstentions=abstentions(run),
        beside=beside(run),
        attacks=attacks(run),
        worsenings=worsenings(run),
        weighings=weighings(run),
        choices=choices(run),
    )
