"""Groups of names that a parameter of a space may take, from the registries. Free of torch.

A space writes the group's name in place of a list: ``among: training-attacks``,
``when: {regime: attacking-regimes}``. So a registered implementation, here or
outside of this repository, needs no line in a YAML file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import nearest
from trustsweep.trainables.registry import ATTACKS, MAPS, NETWORKS, REGIMES, RISKS, training_attacks

GROUPS: Mapping[str, Callable[[], list[str]]] = {
    "regimes": lambda: list(REGIMES),
    "attacking-regimes": lambda: REGIMES.having(attacks=True),
    "selecting-regimes": lambda: REGIMES.having(selects=True),
    "ranking-regimes": lambda: REGIMES.having(ranks=True),
    "training-attacks": training_attacks,
    "iterative-attacks": lambda: ATTACKS.having(iterative=True, follows_gradients=True),
    "pixel-networks": lambda: NETWORKS.having(kind="pixels"),
    "image-networks": lambda: NETWORKS.having(kind="images"),
    "risks": lambda: list(RISKS),
    "selection-measures": lambda: ["default", *MAPS],
}


def group(name: str) -> list[str]:
    """The names of a group. Raises `UserError` for an unknown one."""
    if name not in GROUPS:
        raise UserError(
            f"{name!r} is no list and no group of names{nearest(name, list(GROUPS))} "
            f"Known: {', '.join(GROUPS)}."
        )
    return GROUPS[name]()
