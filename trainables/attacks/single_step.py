"""Attacks that look at the gradient once."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from trustsweep.data_pipelines.errors import UserError
from trustsweep.trainables.attacks.engine import Attack, Ball, Draws
from trustsweep.trainables.registry import Norm


class _SingleStep(Attack):
    """One gradient; the step follows from ε."""

    iterative = False
    norms = ("linf",)
    #: Without a random start every restart would end at the same image.
    restartable: ClassVar[bool] = True

    def __init__(
        self,
        *,
        steps: int = 1,
        step_size: float | None = None,
        restarts: int = 1,
        norm: Norm = "linf",
        draws: int = 1,
    ) -> None:
        if step_size is not None:
            raise UserError(
                "attack: fgsm and r-fgsm step by ε; a step size is for pgd, segpgd and apgd."
            )
        restarts = restarts if self.restartable else min(restarts, 1)
        super().__init__(steps=1, restarts=restarts, norm=norm, draws=draws)


class FGSM(_SingleStep):
    """Fast gradient sign method, x + ε sign ∇ (Goodfellow et al. 2015, arXiv 1412.6572)."""

    restartable = False

    def start(self, ball: Ball, draws: Draws) -> Tensor:
        return ball.clean

    def default_step_size(self, epsilon: Tensor) -> Tensor:
        return epsilon


class RFGSM(_SingleStep):
    """R+FGSM, x' = x + a sign N(0, I), then x' + (ε − a) sign ∇ with a = ε/2.

    Tramèr et al. 2018, arXiv 1705.07204; torchattacks calls it RFGSM(eps=ε, alpha=ε/2, steps=1).
    """

    def start(self, ball: Ball, draws: Draws) -> Tensor:
        return ball.clean + ball.epsilon / 2 * draws.signs()

    def default_step_size(self, epsilon: Tensor) -> Tensor:
        return epsilon / 2
