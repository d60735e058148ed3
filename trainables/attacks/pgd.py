"""Projected gradient descent, and its variant for segmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks.engine import Attack, Ball, Draws, length
from trustsweep.trainables.attacks.victims import Victim
from trustsweep.trainables.registry import Norm


class PGD(Attack):
    """Ascent from a random start in the ball (Madry et al. 2018, arXiv 1706.06083).

    The start is uniform in an L∞ ball; in an L2 ball its direction is, and its distance lies
    uniformly in [0, ε). The default step is 2.5 ε / steps, as in the authors' later library:
    whatever the number of steps, the ascent can cross the ball from any start and turn back.
    """

    def __init__(
        self,
        *,
        steps: int,
        step_size: float | None = None,
        restarts: int = 1,
        norm: Norm = "linf",
        draws: int = 1,
        random_start: bool = True,
    ) -> None:
        """`random_start=False` starts at the image (the basic iterative method)."""
        super().__init__(
            steps=steps,
            step_size=step_size,
            # Without a random start every restart would end at the same image.
            restarts=restarts if random_start else 1,
            norm=norm,
            draws=draws,
        )
        self._random_start = random_start

    def start(self, ball: Ball, draws: Draws) -> Tensor:
        if not self._random_start:
            return ball.clean
        if self.norm == "linf":
            # lerp rounds as uniform_(-ε, ε) does, which has no ε per sample.
            return ball.clean + torch.lerp(-ball.epsilon, ball.epsilon, draws.uniform())
        change = draws.normal()
        # One number of each sample's own.
        share = draws.uniform().flatten(1)[:, 0].view_as(ball.epsilon)
        return ball.clean + change / length(change) * share * ball.epsilon

    def default_step_size(self, epsilon: Tensor) -> Tensor:
        return 2.5 * epsilon / self.steps


class SegPGD(PGD):
    """PGD that turns from pixels still right to all pixels alike (Gu et al. 2022, 2207.12391).

    At step t of T it raises Σ_right (1 − λ) loss + Σ_wrong λ loss with λ = (t − 1) / 2T: pixels
    that are wrong already need no further push, until their falling back has to be kept in check.
    """

    def objective(self, victim: Victim, batch: Batch, step: int) -> Tensor:
        loss, right = victim.pixels(batch)
        share = step / (2 * self.steps)
        weighted = torch.where(right, 1 - share, share) * loss
        return weighted.reshape(len(batch), -1).mean(1)
