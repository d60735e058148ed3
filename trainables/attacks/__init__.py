"""Attacks inside a ball around the image, on the [0, 1] scale."""

from __future__ import annotations

from trainables.attacks.engine import Attack
from trainables.attacks.ensemble import adversary
from trainables.attacks.registry import make_attack
from trainables.attacks.victims import ScoreVictim, TrainingVictim, Victim

__all__ = ["Attack", "ScoreVictim", "TrainingVictim", "Victim", "adversary", "make_attack"]
