"""Auto-PGD: ascent with momentum whose step halves where it stops helping."""

from __future__ import annotations

import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks.engine import Attack, Ball, Draws, length, wide
from trustsweep.trainables.attacks.victims import Victim

_MOMENTUM = 0.75
#: A step is halved where fewer than this share of the last ones raised the loss.
_RISING = 0.75


class APGD(Attack):
    """PGD without a step size to choose (Croce & Hein 2020, arXiv 2003.01690).

    The first step is 2 ε. At checkpoints, whose distances shrink from 0.22 to 0.06 of the steps, a
    sample's step is halved, and its ascent taken up at its best image, where fewer than 0.75 of the
    steps since the last raised its loss, or its best loss stands still.

    Returned is, for each sample, the iterate that does the most **harm** (`Victim.look`), which
    need not be the one of the highest loss. With several restarts that of all of them and of the
    clean image.
    """

    @property
    def gradients(self) -> int:
        return (self.steps + 1) * self.restarts * self.draws

    def start(self, ball: Ball, draws: Draws) -> Tensor:
        """On the surface of the ball."""
        if self.norm == "linf":
            change = 2 * draws.uniform() - 1
            extent = wide(change.flatten(1).abs().amax(1), change)
        else:
            change = draws.normal()
            extent = length(change)
        return ball.clean + ball.epsilon * (change / extent)

    def default_step_size(self, epsilon: Tensor) -> Tensor:
        return 2 * epsilon

    def selection_score(self, victim: Victim, batch: Batch) -> Tensor:
        with torch.no_grad():
            return victim.look(batch)[1]

    def _ascend(
        self, victim: Victim, batch: Batch, ball: Ball, draws: Draws, begin: Tensor | None
    ) -> Tensor:
        image = self.start(ball, draws).clamp(0, 1) if begin is None else begin
        step = torch.ones_like(ball.epsilon) * (
            self.default_step_size(ball.epsilon) if self._step_size is None else self._step_size
        )
        gradient, loss, harm = self._look(victim, batch, image)
        worst, most = image, harm
        best, highest, uphill = image, loss, gradient
        # Of the last checkpoint: its best loss, and whether the step was halved there.
        known, halved = highest, torch.ones_like(loss, dtype=torch.bool)
        before, rises, last = image, torch.zeros_like(loss), loss
        gap, least, shrink = (max(int(share * self.steps), 1) for share in (0.22, 0.06, 0.03))
        since = 0
        for index in range(self.steps):
            moved = ball.project(image + step * ball.direction(gradient))
            if index:
                momentum = (image - before) * (1 - _MOMENTUM)
                moved = ball.project(image + (moved - image) * _MOMENTUM + momentum)
            before, image = image, moved
            gradient, loss, harm = self._look(victim, batch, image)
            worst, most = _larger(harm, most, (image, worst))
            rises, last = rises + (loss > last), loss
            higher = wide(loss > highest, image)
            uphill = torch.where(higher, gradient, uphill)
            best, highest = _larger(loss, highest, (image, best))
            since += 1
            if since < gap:
                continue
            halve = (rises <= _RISING * gap) | (~halved & (known >= highest))
            known, halved = highest, halve
            there = wide(halve, image)
            step = torch.where(there, step / 2, step)
            image, gradient = torch.where(there, best, image), torch.where(there, uphill, gradient)
            rises, since, gap = torch.zeros_like(rises), 0, max(gap - shrink, least)
        return worst

    def _look(self, victim: Victim, batch: Batch, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient (B, ...), loss (B,) and harm (B,) at `image`, the mean over `draws`."""
        losses, harms = [], []

        def raised(at: Batch) -> Tensor:
            loss, harm = victim.look(at)
            losses.append(loss.detach())
            harms.append(harm)
            return loss

        gradient = self._gradient(raised, batch, image)
        return gradient, torch.stack(losses).mean(0), torch.stack(harms).mean(0)


def _larger(new: Tensor, old: Tensor, images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Where the new figure is larger (never of NaN): its image and itself, else the old ones."""
    larger = new > old
    return torch.where(wide(larger, images[0]), *images), torch.where(larger, new, old)
