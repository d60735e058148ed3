"""Adversarial-training regimes: which images of a training batch are attacked.

A regime stands between batch and loss. It may ask the network, in evaluation mode, how uncertain it
is of each image, chooses k = ⌈ρB⌉ of the B images, and has them attacked; training goes on with the
mixed batch of the same size. Regimes that select attack the same number of images, so they are
compared at an equal budget.

The attack raises the cross-entropy of the scores, of an evidential network the type-II risk, and
not the training loss: its other terms (smoothed labels, regularisers) would lead the attack to
images of which the network is too sure, which are right.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks import Attack, ScoreVictim, make_attack
from trustsweep.trainables.attacks.engine import frozen
from trustsweep.trainables.contract import Config, Method
from trustsweep.trainables.registry import ATTACKS, MAPS, REGIMES, training_attacks
from trustsweep.trainables.settings import number, whole, word
from trustsweep.trainables.uncertainty import SCORES, image_score

#: Tells the draw that breaks ties from the draws of the attack's start, which use the same seeds.
_TIE_SALT = 0x4F1BBCDCBFA53E0B


@dataclass(frozen=True)
class RegimeResult:
    """What a regime made of a batch.

    Attributes:
        batch: The batch to train on, rows in the order they came.
        rows: Indices of the attacked images, ascending.
        score: (B,) image uncertainty that ranked them, on the CPU; None without ranking.
        gradients: Gradient evaluations that the attack cost, summed over images.
    """

    batch: Batch
    rows: tuple[int, ...] = ()
    score: Tensor | None = None
    gradients: int = 0


class Regime(ABC):
    """Called once per training step; built from a trial's config.

    The constructors raise `UserError` naming the config key that is missing or out of range.
    """

    #: Whether it attacks any image; only a fraction of each batch; the most or least uncertain.
    attacks: ClassVar[bool] = True
    selects: ClassVar[bool] = False
    ranks: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.attack: Attack | None = None
        self.epsilon = 0.0

    def __call__(
        self,
        method: Method,
        network: nn.Module,
        batch: Batch,
        *,
        epsilon: float | None = None,
        seeds: Tensor | None = None,
        step: int = 0,
    ) -> RegimeResult:
        """The batch to train on.

        Args:
            network: The bare network, not its wrapper for distributed training. Its modes,
                gradients and weights are left as found.
            epsilon: Instead of the config's, where a schedule sets it.
            seeds: (B,) integers, fresh for every epoch. A row's random start and its place among
                ties then depend on its own seed alone. None draws from the global generator.
            step: Training step, from 0; alternating regimes look at it.
        """
        radius = self.epsilon if epsilon is None else epsilon
        score = self.score(method, network, batch)
        rows = self.choose(len(batch), score, seeds, step) if radius > 0 else ()
        if self.attack is None or not rows:
            return RegimeResult(batch, score=score)
        victim = ScoreVictim(method, network)
        attacked = self.attack(victim, batch, radius, rows, seeds)
        return RegimeResult(attacked, rows, score, len(rows) * self.attack.gradients)

    def score(self, method: Method, network: nn.Module, batch: Batch) -> Tensor | None:
        """(B,) on the CPU: what ranks the images; None where nothing does."""
        return None

    @abstractmethod
    def choose(
        self, size: int, score: Tensor | None, seeds: Tensor | None, step: int
    ) -> tuple[int, ...]:
        """The rows to attack, ascending."""


def from_config(config: Config) -> Regime:
    """The regime that `config` names under `regime`, with its other keys."""
    regime: Regime = REGIMES[word(config, "regime", REGIMES)](config)
    return regime


class NoAttack(Regime):
    """Clean training."""

    attacks = False

    def choose(
        self, size: int, score: Tensor | None, seeds: Tensor | None, step: int
    ) -> tuple[int, ...]:
        return ()


class WholeBatch(Regime):
    """Standard adversarial training: every image, every step (Madry et al. 2018, 1706.06083).

    Config: `attack` (one of `training_attacks`), `epsilon` in [0, 1], and `attack_steps` for
    attacks of several steps.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        name = word(config, "attack", ATTACKS)
        if name not in training_attacks():
            raise UserError(
                f"config: 'attack' is {name!r}, which searches without gradients: it is for "
                f"evaluation (evaluation.attack) and too slow for training. Choose among: "
                f"{', '.join(training_attacks())}."
            )
        steps = whole(config, "attack_steps", low=1) if ATTACKS[name].iterative else 1
        self.attack = make_attack(name, steps=steps)
        self.epsilon = number(config, "epsilon", low=0, high=1)

    def choose(
        self, size: int, score: Tensor | None, seeds: Tensor | None, step: int
    ) -> tuple[int, ...]:
        return tuple(range(size))


class Alternating(WholeBatch):
    """Clean and attacked batches in turn, the first clean."""

    def choose(
        self, size: int, score: Tensor | None, seeds: Tensor | None, step: int
    ) -> tuple[int, ...]:
        return tuple(range(size)) if step % 2 else ()


class RandomFraction(WholeBatch):
    """k = ⌈ρB⌉ images at random. Config: `attack_fraction`, ρ in [0, 1], and the attack's keys."""

    selects = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.fraction = number(config, "attack_fraction", low=0, high=1)

    def choose(
        self, size: int, score: Tensor | None, seeds: Tensor | None, step: int
    ) -> tuple[int, ...]:
        order = _shuffle(size, seeds)
        if score is not None:
            order = order[score[order].argsort(stable=True, descending=True)]
        return tuple(sorted(order[: attacked_rows(size, self.fraction)].tolist()))


class MostUncertain(RandomFraction):
    """The k images of which the network is least certain; ties fall at random.

    Config: `selection_measure` (an uncertainty map of the method, or "default" for its first)
    and `selection_score` (how a map becomes one number, one of `SCORES`), beside
    `attack_fraction` and the attack's keys.
    """

    ranks = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.measure = word(config, "selection_measure", ("default", *MAPS))
        self.reduction = word(config, "selection_score", SCORES)

    def score(self, method: Method, network: nn.Module, batch: Batch) -> Tensor:
        name = method.uncertainties[0] if self.measure == "default" else self.measure
        if name not in method.uncertainties:
            raise UserError(
                f"config: 'selection_measure' is {name!r}, which this method does not offer. "
                f"Known: default, {', '.join(method.uncertainties)}."
            )
        with torch.no_grad(), frozen(network):
            uncertainty = method.predict(network, batch).uncertainty[name]
        return image_score(self.reduction, uncertainty, measure=name).cpu()


class LeastUncertain(MostUncertain):
    """The control: the k images of which the network is most certain."""

    def choose(
        self, size: int, score: Tensor | None, seeds: Tensor | None, step: int
    ) -> tuple[int, ...]:
        return super().choose(size, None if score is None else -score, seeds, step)


def attacked_rows(size: int, fraction: float) -> int:
    """k = ⌈ρB⌉, taking products such as 0.1 · 30 = 3.0000000000000004 for what they mean."""
    return math.ceil(round(fraction * size, 9))


def _shuffle(size: int, seeds: Tensor | None) -> Tensor:
    """A random order of the rows, in which each row's own seed decides its place."""
    if seeds is None:
        return torch.randperm(size)
    keys = [
        torch.rand((), generator=torch.Generator().manual_seed(seed ^ _TIE_SALT))
        for seed in seeds.tolist()
    ]
    return torch.stack(keys).argsort()
