"""Attacks inside a ball around the image, on the [0, 1] scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustsweep.data_pipelines.lazy import exports

if TYPE_CHECKING:
    from trustsweep.trainables.attacks.engine import Attack
    from trustsweep.trainables.attacks.ensemble import adversary
    from trustsweep.trainables.attacks.registry import make_attack
    from trustsweep.trainables.attacks.victims import ScoreVictim, TrainingVictim, Victim

__all__ = ["Attack", "ScoreVictim", "TrainingVictim", "Victim", "adversary", "make_attack"]

__getattr__ = exports(
    __name__,
    {
        "Attack": "trustsweep.trainables.attacks.engine",
        "ScoreVictim": "trustsweep.trainables.attacks.victims",
        "TrainingVictim": "trustsweep.trainables.attacks.victims",
        "Victim": "trustsweep.trainables.attacks.victims",
        "adversary": "trustsweep.trainables.attacks.ensemble",
        "make_attack": "trustsweep.trainables.attacks.registry",
    },
)
