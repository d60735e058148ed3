"""Robustness of a model: its attacks, the gap between them, signs of gradient masking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trustsweep.data_pipelines.schema import Batch
from trustsweep.data_pipelines.streams import Stream
from trustsweep.distributed.workers.model import Model
from trustsweep.search_spaces.study import EvaluationSettings
from trustsweep.trainables.attacks.masking import SIGNS, Effort
from trustsweep.trainables.conditions import attacked_name
from trustsweep.trainables.evaluation import Evaluation
from trustsweep.trainables.metrics.catalog import AREAS
from trustsweep.trainables.metrics.names import MetricName
from trustsweep.trainables.registry import FULL
from trustsweep.trainables.sample_scores import SampleScores

#: Samples checked for signs of gradient masking, and the effort, by the final attack.
SAMPLES = {"full": 48, "fast": 12}
EFFORT = {
    "full": Effort(steps=40, queries=400),
    "fast": Effort(steps=10, queries=60),
}


def attacked_again(
    model: Model, samples: Stream, size: int, scores: SampleScores | None
) -> Evaluation:
    """Evaluate the samples again under the full ensemble, clean and attacked only."""
    return model.evaluate(samples, batch_size=size, scores=scores, attack=FULL, attacked_alone=True)


def attack_card(
    model: Model,
    settings: EvaluationSettings,
    few: Batch,
    fast: Mapping[str, float],
    full: Mapping[str, float] | None,
) -> dict[str, Any]:
    """The card's `attack`: everything that its metrics under attack depend on.

    Args:
        few: Samples to check for signs of gradient masking.
        fast: The metrics under the attack of the search.
        full: The metrics under the full ensemble, if it is run.

    Returns:
        - search, final: the members of each attack with their parameters, in order.
        - norm and epsilons.
        - left_out: members of the latter that need torchattacks, where it is not installed.
        - gap: by metric of the curves and areas, how much higher it stands under the attack of the
          search than under the full one; empty where nothing but the former ran.
        - masking: see `Masking.as_json`; and as `meanings` what every sign means, set or not.
        Empty where nothing is attacked.
    """
    plan = model.plan
    if not plan.budgets:
        return {}
    part: dict[str, Any] = {
        "name": {"search": plan.attack, "final": FULL if full else plan.attack},
        "norm": plan.norm,
        "epsilons": list(plan.budgets),
        "search": model.attack_settings(),
    }
    part["final"] = model.attack_settings(FULL) if full else part["search"]
    part["left_out"] = model.attacks_left_out() if full else []
    part["gap"] = _gap(plan.budgets, fast, full) if full else {}
    effort, size = EFFORT[settings.final], settings.batch_size
    masking = model.masking(few, max(plan.budgets), effort, batch_size=size)
    part["masking"] = {**masking.as_json(), "meanings": dict(SIGNS)}
    return part


def _gap(
    budgets: Sequence[float], fast: Mapping[str, float], full: Mapping[str, float]
) -> dict[str, float]:
    areas = [name for name in AREAS if name in fast]
    leaves = [MetricName.parse(name).metric for name in areas]
    names = [f"{attacked_name(e)}.{leaf}" for e in budgets for leaf in leaves]
    return {name: fast[name] - full[name] for name in [*names, *areas] if name in full}
