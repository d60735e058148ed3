"""The second stage of a sweep: the front's models, and what they are compared with, by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed.front import Objective
from distributed.ledger import SEEDS, Record
from distributed.run import Run
from search_spaces.study import SEED, Study


def repeats(
    study: Study,
    run: Run,
    objectives: Sequence[Objective],
    identify: Callable[[Mapping[str, Any]], str],
) -> list[Record]:
    """The trials that a front's means and tests rest on, under every repeat seed and each once.

    None where the study has one seed. Some may be known already.
    """
    seeds = study.repeat_seeds()
    if not seeds:
        return []
    models = {r.id: r.config for r in run.front(objectives, study.constraints)}
    if models:
        models |= study.references()
    wanted: dict[str, Record] = {}
    for model, config in models.items():
        for seed in seeds:
            seeded = {**config, SEED: seed}
            name = identify(seeded)
            record = Record(name, seeded, number=len(wanted), stage=SEEDS, of=model)
            wanted.setdefault(name, record)
    return list(wanted.values())
