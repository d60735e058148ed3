"""An attack by its name."""

from __future__ import annotations

from trustsweep.trainables.attacks.engine import Attack
from trustsweep.trainables.registry import ATTACKS, Norm


def make_attack(
    name: str,
    *,
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    norm: Norm = "linf",
    draws: int = 1,
) -> Attack:
    """The attack called `name`; see `Attack` for the parameters.

    Raises `UserError` for an unknown name or an impossible parameter.
    """
    attack: Attack = ATTACKS[name](
        steps=steps, step_size=step_size, restarts=restarts, norm=norm, draws=draws
    )
    return attack
