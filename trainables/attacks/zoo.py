"""Attacks of torchattacks, of classifiers, under the rules of the engine.

They look for the nearest image with another prediction rather than for the worst one of a ball, and
so check the others in another way. torchattacks is an extra; `available` says whether it is
installed.
"""

from __future__ import annotations

import importlib.util
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks.engine import Attack, Ball, Draws, wide
from trustsweep.trainables.attacks.victims import ScoreVictim, Victim, mean_harm
from trustsweep.trainables.registry import Norm


def available() -> bool:
    """Is torchattacks installed?"""
    return importlib.util.find_spec("torchattacks") is not None


class _Borrowed(Attack):
    """An attack of torchattacks 3.5.1.

    On one sample at a time, as torchattacks has one seed for a batch, stops where the batch as a
    whole does no better, and picks samples out of it without saying which; together where none of
    that happens (FAB without restarts, of a network whose predictions repeat).

    Its result is brought into the ball, and taken where it does more **harm** (`Victim.look`) there
    than the clean image; pixels that are no numbers are the clean image's. Samples that are wrong
    from the start stay as they are. torchattacks seeds the global generator, which is put back.

    Args:
        steps: torchattacks' steps, at most, and what `gradients` counts: in each, FAB and DeepFool
            take the gradient of every class.
        step_size: None, as these attacks choose their steps.
        draws: Scores averaged for each prediction, for stochastic methods.

    Raises:
        UserError: When built, without torchattacks or with a step size. When called, on anything
            but a classification by scores.
    """

    #: Whether it begins at a random image, from the second restart on.
    restartable: ClassVar[bool] = False
    #: Whether each sample of a batch is treated by itself, where no image is random.
    separable: ClassVar[bool] = False

    def __init__(
        self,
        *,
        steps: int,
        step_size: float | None = None,
        restarts: int = 1,
        norm: Norm | None = None,
        draws: int = 1,
    ) -> None:
        """`norm=None` is the first of `norms`."""
        if not available():
            raise UserError(
                f"attack: {type(self).__name__} is torchattacks', which is not installed. Install "
                "it with `pip install --no-deps torchattacks==3.5.1`, or leave this attack out."
            )
        if step_size is not None:
            raise UserError(
                f"attack: {type(self).__name__} chooses its own steps; a step size is for pgd, "
                "segpgd and apgd."
            )
        super().__init__(
            steps=steps,
            restarts=restarts if self.restartable else min(restarts, 1),
            norm=self.norms[0] if norm is None else norm,
            draws=draws,
        )

    def start(self, ball: Ball, draws: Draws) -> Tensor:
        """At the image, as torchattacks does."""
        return ball.clean

    def default_step_size(self, epsilon: Tensor) -> Tensor:
        """Unused: torchattacks chooses its own."""
        return epsilon

    def selection_score(self, victim: Victim, batch: Batch) -> Tensor:
        return mean_harm(victim, batch, self.draws)

    @abstractmethod
    def peer(self, torchattacks: Any, logits: nn.Module, epsilon: Tensor, seed: int) -> Any:
        """torchattacks' own, for the samples that `epsilon` (n,) is of."""

    def _worst(
        self, victim: Victim, batch: Batch, ball: Ball, draws: Draws, begin: Tensor | None
    ) -> Tensor:
        name = type(self).__name__
        if not isinstance(victim, ScoreVictim) or not victim.method.task.losses.to_boundary:
            raise UserError(f"attack: {name} is for classification, with one class for each image.")
        if begin is not None:
            raise ValueError(f"{name} begins at the image")
        assert batch.label is not None
        clean = self.selection_score(victim, batch)
        # For all, so that a sample's seed is its own whatever the others are answered.
        seeds = (draws.numbers(1)[:, 0].double() * 2**24).long().tolist()
        attacked = batch.image.clone()
        right = (clean <= 0).nonzero().flatten().tolist()
        together = self.separable and self.restarts == 1
        for rows in [right] if together and right else [[row] for row in right]:
            try:
                attacked[rows] = self._attacked(victim, batch, ball, rows, seeds[rows[0]])
            except _Scattered:
                for row in rows:
                    attacked[row] = self._attacked(victim, batch, ball, [row], seeds[row])[0]
        attacked = ball.project(torch.where(attacked.isfinite(), attacked, ball.clean))
        harm = self.selection_score(victim, batch.with_image(attacked))
        return torch.where(wide(harm > clean, attacked), attacked, batch.image)

    def _attacked(
        self, victim: ScoreVictim, batch: Batch, ball: Ball, rows: Sequence[int], seed: int
    ) -> Tensor:
        import torchattacks

        part = batch.select(rows)
        assert part.label is not None
        logits = _Logits(victim, part, self.draws).eval()
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            attack = self.peer(torchattacks, logits, ball.epsilon[rows].flatten(), seed)
            # It takes views that other memory formats do not have.
            attacked: Tensor = attack(part.image.contiguous(), part.label.reshape(-1).long())
        return attacked.detach()


class FAB(_Borrowed):
    """Fast adaptive boundary attack, L∞ or L2 (Croce & Hein 2020, arXiv 1907.02044).

    Steps onto the linearised boundary to the nearest class, and back towards the image.
    """

    restartable = True
    separable = True

    def peer(self, torchattacks: Any, logits: nn.Module, epsilon: Tensor, seed: int) -> Any:
        norm = {"linf": "Linf", "l2": "L2"}[self.norm]
        return torchattacks.FAB(
            logits, norm=norm, eps=epsilon, steps=self.steps, n_restarts=self.restarts, seed=seed
        )


class CW(_Borrowed):
    """Distance and margin in one loss, by Adam, L2 (Carlini & Wagner 2017, arXiv 1608.04644).

    Without the paper's search for the weight of the margin. Pixels of exactly 0 or 1 stand still:
    torchattacks optimises in atanh space, where these are infinite.
    """

    norms = ("l2",)

    def __init__(self, *, weight: float = 1.0, rate: float = 0.01, **parameters: Any) -> None:
        """`weight` of the margin (the paper's c) beside ‖x' − x‖²; `rate` of learning."""
        super().__init__(**parameters)
        self._weight, self._rate = weight, rate

    def peer(self, torchattacks: Any, logits: nn.Module, epsilon: Tensor, seed: int) -> Any:
        return torchattacks.CW(logits, c=self._weight, steps=self.steps, lr=self._rate)


class DeepFool(_Borrowed):
    """Steps onto the nearest linearised boundary, L2 (Moosavi-Dezfooli et al. 2016, 1511.04599)."""

    norms = ("l2",)

    def peer(self, torchattacks: Any, logits: nn.Module, epsilon: Tensor, seed: int) -> Any:
        return torchattacks.DeepFool(logits, steps=self.steps)


class _Scattered(Exception):
    """torchattacks queries some samples of the batch without saying which."""


class _Logits(nn.Module):
    """A victim's scores of a batch as logits of its images, all that torchattacks knows.

    Log-odds z of one column become [0, z]. All are raised by a constant to 1 at least: CW masks by
    multiplying with 0, which is the largest of logits that are all below it, as log-probabilities
    are, and its gradient is then 0.
    """

    def __init__(self, victim: ScoreVictim, batch: Batch, draws: int) -> None:
        super().__init__()
        # torchattacks works on the device of the first parameter.
        self.device = nn.Parameter(batch.image.new_empty(0), requires_grad=False)
        self.network = victim.network
        self._victim, self._batch, self._draws = victim, batch, draws

    def forward(self, image: Tensor) -> Tensor:
        if len(image) != len(self._batch):
            raise _Scattered
        at = self._batch.with_image(image)
        draws = [self._victim.decisions(at).scores for _ in range(self._draws)]
        scores = torch.stack(draws).mean(0)
        scores = scores.squeeze(2)
        if scores.shape[1] == 1:
            scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
        lowest = scores.detach().masked_fill(scores.isinf(), math.inf).amin(dim=1, keepdim=True)
        return scores - lowest + 1
