"""The second stage of a sweep: the front's models, and what they are compared with, by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trustsweep.distributed.run.ledger import SEEDS, Record
from trustsweep.search_spaces.study import SEED, Study


def repeats(
    study: Study,
    front: Iterable[Record],
    identify: Callable[[Mapping[str, Any]], str],
) -> list[Record]:
    """The repeats of the front and the references under every repeat seed, each once.

    None where the study has one seed. Some may be known already.
    """
    seeds = study.repeat_seeds()
    if not seeds:
        return []
    models = {record.id: record.config for record in front}
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
