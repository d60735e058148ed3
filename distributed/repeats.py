"""The second stage of a sweep: the front's models, and a baseline, under every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed.front import Objective
from distributed.ledger import BASELINE, SEEDS, Record
from distributed.run import Run
from search_spaces.study import Study

_SEED = "seed"


def repeats(
    study: Study,
    run: Run,
    objectives: Sequence[Objective],
    identify: Callable[[Mapping[str, Any]], str],
) -> list[Record]:
    """The trials that a front's means and tests still need; none where the study has one seed."""
    if study.seeds == 1:
        return []
    models = {r.id: r.config for r in run.front(objectives, study.constraints)}
    if models and study.baseline is not None:
        models[BASELINE] = study.baseline_config()
    wanted = [
        Record(id=identify(config), config=config, number=number, stage=SEEDS, of=model)
        for number, (model, config) in enumerate(
            (model, {**config, _SEED: seed})
            for model, config in models.items()
            for seed in range(study.seeds)
        )
    ]
    return [record for record in wanted if record.id not in run.ledger.records]
