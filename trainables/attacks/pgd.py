"""Projected gradient descent, and its variant for segmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from data_pipelines.schema import Batch
from trainables.attacks.engine import Attack, Draws
from trainables.attacks.victims import Victim


class PGD(Attack):
    """Signed ascent from a uniform start in the ball (Madry et al. 2018, arXiv 1706.06083).

    The default step is 2.5 ε / steps, as in the authors' later library: whatever the number of
    steps, the ascent can cross the ball from any start and turn back.
    """

    def __init__(
        self,
        *,
        steps: int,
        step_size: float | None = None,
        restarts: int = 1,
        random_start: bool = True,
    ) -> None:
        """`random_start=False` starts at the image (the basic iterative method)."""
        # Without a random start every restart would end at the same image.
        super().__init__(steps=steps, step_size=step_size, restarts=restarts if random_start else 1)
        self._random_start = random_start

    def start(self, image: Tensor, epsilon: Tensor, draws: Draws) -> Tensor:
        if not self._random_start:
            return image
        # lerp rounds as uniform_(-ε, ε) does, which has no ε per sample.
        return image + torch.lerp(-epsilon, epsilon, draws.uniform())

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
