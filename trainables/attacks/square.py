"""Random search by the predictions alone: an attack that no gradient can hide from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks.engine import Attack, Ball, Draws, wide
from trustsweep.trainables.attacks.victims import ScoreVictim, Victim, mean_harm

#: The share of the image that the first boxes cover,
_FIRST = 0.8
#: and after which of 10 000 steps it is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


class Square(Attack):
    """Random search without gradients, in L∞ (Andriushchenko et al. 2020, arXiv 1912.00049).

    It starts from stripes of ±ε. Each step moves a box of the image (a square, in volumes a cube;
    of a dimension too short for it, all) by ±2 ε in each channel, inside the ball, and keeps the
    change where it does more **harm** (`Victim.look`). The boxes shrink as the search goes on.
    All of this is torchattacks 3.5.1's, to which the search of 2-D images is equal on the same seed
    (tested).

    It sees the predictions of a network alone. Where it does more harm than an attack by
    gradients, these gradients are masked.

    Returns, for each sample, the most harmful image that was tried, the clean one included. A
    classifier's sample is searched until its prediction is wrong; one that is wrong from the start
    stays as it is.

    Args:
        steps: Boxes tried, one query (forward pass) each instead of a gradient; the paper takes
            thousands. A box that would change nothing costs none.
        step_size: How far a box moves; None for 2 ε, from one face of the ball to the other.
        restarts: Searches from other stripes, for samples whose prediction is still right.
        norm: "linf".
        draws: Queries averaged for each prediction, for stochastic methods.
    """

    norms = ("linf",)
    follows_gradients = False

    @property
    def gradients(self) -> int:
        """None; see `queries`."""
        return 0

    @property
    def queries(self) -> int:
        """Forward passes for each attacked sample, at most."""
        return (1 + self.restarts * (1 + self.steps)) * self.draws

    def start(self, ball: Ball, draws: Draws) -> Tensor:
        """Lines along the first spatial dimension, each of ±ε."""
        channels, _, *others = ball.clean.shape[1:]
        lines = _sign(draws.numbers(channels, 1, *others))
        return ball.project(ball.clean + ball.epsilon * lines)

    def default_step_size(self, epsilon: Tensor) -> Tensor:
        return 2 * epsilon

    def selection_score(self, victim: Victim, batch: Batch) -> Tensor:
        return mean_harm(victim, batch, self.draws)

    def _worst(
        self, victim: Victim, batch: Batch, ball: Ball, draws: Draws, begin: Tensor | None
    ) -> Tensor:
        classes = isinstance(victim, ScoreVictim) and victim.method.task.losses.to_boundary
        enough = 0.0 if classes else math.inf
        worst, most = batch.image, self.selection_score(victim, batch)
        for restart in range(self.restarts):
            # Drawn for all: a sample's numbers are its own, whatever has become of the others.
            stripes = self.start(ball, draws)
            image = stripes if restart or begin is None else begin
            boxes = draws.numbers(self.steps, image.ndim - 2 + image.shape[1], shared=True)
            right = (most <= enough).nonzero().flatten()
            if not len(right):
                break
            search = _Search(self, victim, batch, ball, image)
            search.ask(right, image[right])
            for index in range(self.steps):
                right = right[search.harm[right] <= enough]
                if not len(right):
                    break
                search.step(right, boxes[:, index], _share(index / self.steps))
            more = search.harm > most
            worst = torch.where(wide(more, worst), search.image, worst)
            most = torch.where(more, search.harm, most)
        return worst


class _Search:
    """One search: the most harmful images so far, and their harm."""

    def __init__(
        self, attack: Square, victim: Victim, batch: Batch, ball: Ball, image: Tensor
    ) -> None:
        self.attack, self.victim, self.batch, self.ball = attack, victim, batch, ball
        self.image = image.clone()
        self.harm = torch.full((len(image),), -math.inf, dtype=torch.double, device=image.device)
        self._size = (
            attack.default_step_size(ball.epsilon)
            if attack._step_size is None
            else torch.full_like(ball.epsilon, attack._step_size)
        )

    def ask(self, rows: Tensor, images: Tensor) -> None:
        """Keep those of `images` that do more harm than the worst so far of `rows`."""
        batch = self.batch if len(rows) == len(self.batch) else self.batch.select(rows.tolist())
        harm = self.attack.selection_score(self.victim, batch.with_image(images)).double()
        more = harm > self.harm[rows]
        self.image[rows[more]], self.harm[rows[more]] = images[more], harm[more]

    def step(self, rows: Tensor, numbers: Tensor, share: float) -> None:
        """Move a box of each of `rows`; `numbers` (B, d + C) in [0, 1) say where and which way."""
        kept = self.image[rows]
        spatial = kept.shape[2:]
        numbers = numbers.expand(len(self.batch), -1)[rows]
        inside = torch.ones((len(rows), *[1] * (kept.ndim - 1)), dtype=torch.bool).to(kept.device)
        for axis, (size, side) in enumerate(zip(spatial, _sides(spatial, share), strict=True)):
            # As in torchattacks, and so never up to the last place.
            corner = ((size - side) * numbers[:, axis : axis + 1]).long()
            place = torch.arange(size, device=kept.device)
            shape = [1] * kept.ndim
            shape[0], shape[2 + axis] = len(rows), size
            inside = inside & ((place >= corner) & (place < corner + side)).view(shape)
        way = _sign(numbers[:, len(spatial) :]).view(*kept.shape[:2], *[1] * len(spatial))
        ball = Ball(self.ball.clean[rows], self.ball.epsilon[rows], self.ball.norm)
        moved = torch.where(inside, ball.project(kept + self._size[rows] * way), kept)
        other = (moved != kept).flatten(1).any(1)
        if other.any():
            self.ask(rows[other], moved[other])


def _sign(numbers: Tensor) -> Tensor:
    """−1 or 1 of numbers in [0, 1)."""
    return torch.sign(2 * numbers - 1)


def _share(done: float) -> float:
    """The share of the image that a box covers once the share `done` of the steps is done."""
    return _FIRST / 2 ** sum(int(done * 10_000) > step for step in _HALVINGS)


def _sides(spatial: Sequence[int], share: float) -> list[int]:
    """Sides of a cube that covers `share` of an image; what a short dimension cuts off, others get.

    At least one pixel each.
    """
    sides, volume = [1] * len(spatial), share * math.prod(spatial)
    ascending = sorted(range(len(spatial)), key=lambda axis: spatial[axis])
    for before, axis in enumerate(ascending):
        left = len(spatial) - before
        edge = volume ** (1 / left)
        sides[axis] = max(min(round(edge), spatial[axis]), 1)
        volume = volume / spatial[axis] if edge > spatial[axis] else edge ** (left - 1)
    return sides
