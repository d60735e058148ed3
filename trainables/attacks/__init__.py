"""Attacks inside a ball around the image, on the [0, 1] scale."""

from __future__ import annotations

from trainables.attacks.engine import Attack, Norm
from trainables.attacks.ensemble import adversary
from trainables.attacks.registry import make_attack
from trainables.attacks.victims import ScoreVictim, TrainingVictim, Victim
from trainables.registry import ATTACKS, ENSEMBLES, FAST, FULL, training_attacks

__all__ = [
    "ATTACKS",
    "ENSEMBLES",
    "FAST",
    "FULL",
    "Attack",
    "Norm",
    "ScoreVictim",
    "TrainingVictim",
    "Victim",
    "adversary",
    "make_attack",
    "training_attacks",
]
