"""Signs that a model looks robust because its gradients are hidden (gradient masking).

After Athalye et al. 2018 (arXiv 1802.00420) and Carlini et al. 2019 (1902.06705). A sign proves
nothing, but a model with one needs a closer look before its results are trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Batch, Manifest
from trustsweep.trainables.attacks.apgd import APGD
from trustsweep.trainables.attacks.engine import Attack, frozen
from trustsweep.trainables.attacks.losses import Decisions
from trustsweep.trainables.attacks.pgd import PGD
from trustsweep.trainables.attacks.registry import make_attack
from trustsweep.trainables.attacks.victims import ScoreVictim
from trustsweep.trainables.contract import Method
from trustsweep.trainables.registry import Norm

#: What each sign means, by name.
SIGNS: Mapping[str, str] = {
    "single-step": "one gradient step does more harm than many",
    "black-box": "an attack without gradients finds what those with gradients miss",
    "more-steps": "twice the steps and another restart still do more harm",
    "large-radius": "within ε = 0.5 some predictions are still right",
    "zero-gradient": "the gradient is exactly 0 for some samples",
    "no-ascent": "the loss does not rise along the attack",
}

#: Room above what chance gives.
POINT = 0.01
#: Share of the samples, and of the performance, above which the others are set.
SHARE = 0.02
#: The radius at which nothing can be right but by not looking at the image.
LARGE = 0.5
#: Steps of the ascent whose loss is to rise.
_SMALL_STEPS = 8


@dataclass(frozen=True)
class Effort:
    """How hard the checks look: steps of the thorough attack, queries of the one without gradients.

    The checks cost nine times as many gradients of each sample as there are steps.
    """

    steps: int = 40
    queries: int = 400


@dataclass(frozen=True)
class Masking:
    """The results of the checks.

    Attributes:
        samples: How many were attacked.
        epsilon: The radius of all checks but "large-radius".
        figures: The values that the signs are derived from, by name. A *performance* is the share
            of samples with the right prediction, the mean Dice of the images with a lesion (of
            all, if none has), or what else the task's `performance` is.
        signs: Those of `SIGNS` that are set.
    """

    samples: int
    epsilon: float
    figures: dict[str, float]
    signs: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON, each sign with its meaning."""
        return {
            "samples": self.samples,
            "epsilon": self.epsilon,
            "figures": self.figures,
            "signs": {name: SIGNS[name] for name in self.signs},
        }


def masking(
    method: Method,
    network: nn.Module,
    batch: Batch,
    epsilon: float,
    *,
    seeds: Tensor | None = None,
    norm: Norm = "linf",
    effort: Effort | None = None,
    batch_size: int | None = None,
) -> Masking:
    """Look for signs of gradient masking on a batch with its truth.

    The loss is that of the fast ensemble: Dice, or the margin.

    Samples whose image is absent are left out where any other has one: no attack can move them.

    Args:
        epsilon: > 0; the attack budget of the evaluation.
        seeds: (B,) integers, see `Attack`.
        batch_size: How many samples pass the network at once; None for all.
    """
    victim = ScoreVictim(method, network, method.task.losses.first)
    rows = _attackable(batch, method.manifest)
    batch, seeds = batch.select(rows), None if seeds is None else seeds[rows]
    check = _Check(victim, batch, seeds, batch_size or len(batch))
    effort = effort or Effort()
    fgsm = "fgsm" if norm == "linf" else "pgd"
    once = check.after(make_attack(fgsm, steps=1, norm=norm), epsilon)
    many = check.after(APGD(steps=effort.steps, restarts=2, norm=norm), epsilon)
    more = check.after(APGD(steps=2 * effort.steps, restarts=3, norm=norm), epsilon)
    large = check.after(APGD(steps=effort.steps), LARGE)
    # Square knows no L2 ball; of the L∞ balls within it, this is the largest.
    within = epsilon if norm == "linf" else epsilon / math.sqrt(batch.image[:1].numel())
    blind = check.after(make_attack("square", steps=effort.queries), within)
    figures = {
        "clean": check.performance(check.clean),
        "single_step": check.performance(once),
        "many_steps": check.performance(many),
        "more_steps": check.performance(torch.minimum(many, more)),
        "black_box": check.performance(blind),
        "black_box_beyond": check.performance(many) - check.performance(torch.minimum(many, blind)),
        "large_radius": check.performance(large),
        "zero_gradient": check.zero_gradient(),
        "no_ascent": check.no_ascent(epsilon, norm),
    }
    # A single sample is no sign.
    some = max(SHARE, 1.5 / len(batch))
    criteria = {
        "single-step": figures["many_steps"] - figures["single_step"] > some,
        "black-box": figures["black_box_beyond"] > some,
        "more-steps": figures["many_steps"] - figures["more_steps"] > some,
        "large-radius": figures["large_radius"] > check.chance(),
        "zero-gradient": figures["zero_gradient"] > some,
        "no-ascent": figures["no_ascent"] > some,
    }
    signs = tuple(name for name, met in criteria.items() if met)
    return Masking(len(batch), epsilon, figures, signs)


def _attackable(batch: Batch, manifest: Manifest) -> list[int]:
    """The samples that have an image; all if none has, as then nothing can be attacked."""
    everyone = list(range(len(batch)))
    if batch.present is None or not manifest.modalities:
        return everyone
    columns = [place for place, m in enumerate(manifest.modalities) if m.column == "image"]
    attackable = (batch.present[:, columns] > 0).any(dim=1)
    return [row for row in everyone if attackable[row]] or everyone


class _Check:
    """Attacks on one batch, and what each leaves of the performance."""

    def __init__(self, victim: ScoreVictim, batch: Batch, seeds: Tensor | None, size: int) -> None:
        self._victim, self._batch = victim, batch
        rows = list(range(len(batch)))
        self._parts = [
            (batch.select(some), None if seeds is None else seeds[some])
            for some in (rows[start : start + size] for start in rows[::size])
        ]
        self._task = victim.method.task
        self.clean = self._each(lambda part, _: self._score(part))

    def after(self, attack: Attack, epsilon: float) -> Tensor:
        """(B,): how right each prediction still is."""

        def score(part: Batch, seeds: Tensor | None) -> Tensor:
            return self._score(attack(self._victim, part, epsilon, seeds=seeds))

        return self._each(score)

    def performance(self, score: Tensor) -> float:
        """See `Masking.figures`."""
        return float(score[self._counted].mean())

    def chance(self) -> float:
        """What a model that never looks at the image can reach, and a little room above it."""
        outputs = self._decisions(self._parts[0][0]).scores.shape[1]
        return self._task.chance(self._batch, outputs, self._counted) + POINT

    def zero_gradient(self) -> float:
        """Share of samples with no gradient at the clean image, or one that is no number."""
        return float(self._each(lambda part, _: self._still(part)).mean())

    def no_ascent(self, epsilon: float, norm: Norm) -> float:
        """Share of samples whose loss does not rise by small steps uphill from the clean image."""
        attack = PGD(
            steps=_SMALL_STEPS, step_size=epsilon / _SMALL_STEPS, norm=norm, random_start=False
        )

        def level(part: Batch, _: Tensor | None) -> Tensor:
            after = attack(self._victim, part, epsilon)
            with torch.inference_mode(False), torch.no_grad(), frozen(self._victim.network):
                return ~(self._victim.loss(after) > self._victim.loss(part))

        return float(self._each(level).double().mean())

    def _each(self, function: Callable[[Batch, Tensor | None], Tensor]) -> Tensor:
        """(B,) on the CPU, of parts that the memory holds."""
        return torch.cat([function(part, seeds).cpu() for part, seeds in self._parts])

    def _still(self, batch: Batch) -> Tensor:
        """(B,) float64: 1 where the gradient is 0 or not finite throughout."""
        with torch.inference_mode(False), torch.enable_grad(), frozen(self._victim.network):
            image = batch.image.detach().clone().requires_grad_()
            loss = self._victim.loss(batch.with_image(image)).sum()
            (gradient,) = torch.autograd.grad(loss, image, allow_unused=True)
        if gradient is None:
            return torch.ones(len(batch), dtype=torch.double)
        moves = (gradient != 0) & gradient.isfinite()
        return (~moves.flatten(1).any(dim=1)).double()

    @cached_property
    def _counted(self) -> Tensor:
        return self._task.counted(self._batch)

    def _decisions(self, batch: Batch) -> Decisions:
        with torch.inference_mode(False), torch.no_grad(), frozen(self._victim.network):
            return self._victim.decisions(batch)

    def _score(self, batch: Batch) -> Tensor:
        return self._task.performance(self._decisions(batch)).cpu()
