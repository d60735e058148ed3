"""The front: completed trials over any two metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trustsweep.data_pipelines.schema import Split
from trustsweep.distributed.report.evaluated import fully_attacked
from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.thinning import shown_metrics
from trustsweep.distributed.run.evaluation_card import EvaluationCard
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.optimism import FrontEstimate, front_estimates

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FrontData:
    """The test estimates of the front.

    Attributes:
        estimates: The front's models on the test split.
        fully_attacked: Whether these are under the full attack.
    """

    estimates: list[FrontEstimate]
    fully_attacked: bool


class FrontSection(Section[FrontData]):
    figure = "front"

    def gather(self, run: Run) -> FrontData:
        return FrontData(front_estimates(run), fully_attacked(run))

    def payload(self, run: Run, data: FrontData) -> dict[str, Any]:
        metrics = shown_metrics(run)
        return {
            "tests": {card.id: on_test(card, metrics) for card in run.front_cards if card.on_test}
        }

    def draw(self, run: Run, data: FrontData) -> Figure | None:
        from trustsweep.distributed.report.sections.front.figure import draw

        return draw(run, data)


def on_test(card: EvaluationCard, metrics: list[str]) -> dict[str, list[float | None]]:
    """Value and interval of the metrics on the test split; a cost is no figure of it.

    Metrics under attack are those of the strongest attack that the model was evaluated under.
    """
    known = card.estimates.get(Split.TEST)
    estimates = {**known.figures, **known.final} if known else {}
    return {
        name: [
            card.metrics[name],
            *((estimates[name].low, estimates[name].high) if name in estimates else (None, None)),
        ]
        for name in metrics
        if name in card.metrics
    }
