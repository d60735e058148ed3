"""Attacks inside a ball around the image, on the [0, 1] scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.lazy import exports

if TYPE_CHECKING:
    from trainables.attacks.engine import Attack
    from trainables.attacks.ensemble import adversary
    from trainables.attacks.registry import make_attack
    from trainables.attacks.victims import ScoreVictim, TrainingVictim, Victim

__all__ = ["Attack", "ScoreVictim", "TrainingVictim", "Victim", "adversary", "make_attack"]

__getattr__ = exports(
    __name__,
    {
        "Attack": "trainables.attacks.engine",
        "ScoreVictim": "trainables.attacks.victims",
        "TrainingVictim": "trainables.attacks.victims",
        "Victim": "trainables.attacks.victims",
        "adversary": "trainables.attacks.ensemble",
        "make_attack": "trainables.attacks.registry",
    },
)
