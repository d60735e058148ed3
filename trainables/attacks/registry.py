"""Every attack, one line each."""

from __future__ import annotations

from data_pipelines.registry import Registry
from trainables.attacks.engine import Attack, Norm

ATTACKS = Registry(
    "attack",
    {
        "fgsm": "trainables.attacks.single_step:FGSM",
        "r-fgsm": "trainables.attacks.single_step:RFGSM",
        "pgd": "trainables.attacks.pgd:PGD",
        "segpgd": "trainables.attacks.pgd:SegPGD",
        "apgd": "trainables.attacks.apgd:APGD",
        "square": "trainables.attacks.square:Square",
    },
)


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


def training_attacks() -> list[str]:
    """Names of those that follow a gradient: without one, a batch takes thousands of queries."""
    return [name for name in ATTACKS if make_attack(name).gradients]
