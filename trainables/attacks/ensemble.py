"""Several attacks at once, the worst of each sample: what *attacked* means in every figure.

One attack can be blind where another is not, and a search finds the models that it is blind for. So
a model is evaluated with an ensemble: a **fast** one at every rung of a search, a **full** one
where results are published. The gap between the two is reported beside them (see `masking`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks import zoo
from trustsweep.trainables.attacks.apgd import APGD
from trustsweep.trainables.attacks.engine import Attack, frozen, wide
from trustsweep.trainables.attacks.registry import make_attack
from trustsweep.trainables.attacks.square import Square
from trustsweep.trainables.attacks.victims import ScoreVictim, TrainingVictim, Victim
from trustsweep.trainables.contract import Method, Progress
from trustsweep.trainables.registry import ENSEMBLES, FAST, FULL, Norm

#: Steps of each member of the full ensemble, by the most pixels (or voxels) of an image that has
#: so many; beyond the last, `_LARGE`.
STEPS = {32**2: 50, 64**2: 40, 128**2: 30, 256**2: 20}
_LARGE = 10
#: Random starts of the full ensemble's first member.
_RESTARTS = 2
#: Queries of Square for each step of the others.
_QUERIES = 5
#: Predictions averaged for each gradient of a method that draws anew at every one.
_DRAWS = {FAST: 4, FULL: 16}


@dataclass(frozen=True)
class Member:
    """One attack of an ensemble.

    Attributes:
        name: As the card has it.
        thorough: Also attacks samples whose prediction is wrong already, which moves metrics of
            ranking and calibration, where others leave them.
        onward: Goes on from the worst images so far, where others start on their own.
    """

    name: str
    attack: Attack
    victim: Victim
    thorough: bool = False
    onward: bool = False


class Ensemble:
    """The worst images that any of several attacks finds, sample by sample.

    The worst is the one of most harm to the prediction (`Task.harm`), not of the largest loss. So
    no member alone makes more predictions wrong (or overlaps smaller) than the ensemble does, and
    no sample ends with less harm than the images it started from.

    Attributes:
        gradients: Gradient evaluations so far, counted by image.
    """

    def __init__(self, referee: ScoreVictim, members: Sequence[Member]) -> None:
        self._referee = referee
        self.members = tuple(members)
        self.gradients = 0

    def __call__(
        self,
        batch: Batch,
        epsilon: float,
        seeds: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Batch:
        """The batch with the worst images within `epsilon`.

        Args:
            seeds: See `Attack`.
            start: The worst images within a smaller ε, which lie in this ball too; the first member
                goes on from them.
        """
        worst = batch if start is None else batch.with_image(start)
        harm = self._harm(worst)
        for member in self.members:
            rows = range(len(batch)) if member.thorough else torch.nonzero(harm <= 0).flatten()
            chosen = [int(row) for row in rows]
            if not chosen:
                continue
            onward = member.onward or (start is not None and member is self.members[0])
            begin = worst.image if onward else None
            attacked = member.attack(member.victim, batch, epsilon, chosen, seeds, begin)
            self.gradients += len(chosen) * member.attack.gradients
            new = self._harm(attacked)
            better = new > harm  # never of NaN
            image = torch.where(wide(better, worst.image), attacked.image, worst.image)
            worst, harm = worst.with_image(image), torch.where(better, new, harm)
        return worst

    def _harm(self, batch: Batch) -> Tensor:
        with torch.inference_mode(False), torch.no_grad(), frozen(self._referee.network):
            return self._referee.look(batch)[1]


class Single:
    """One attack alone, as in its paper: for comparison, not for the evaluation itself."""

    def __init__(self, victim: ScoreVictim, attack: Attack) -> None:
        self._victim, self._attack = victim, attack
        self.gradients = 0
        self.members = (Member(type(attack).__name__.lower(), attack, victim, thorough=True),)

    def __call__(
        self,
        batch: Batch,
        epsilon: float,
        seeds: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Batch:
        """The batch attacked within `epsilon`; `start` is left aside."""
        self.gradients += len(batch) * self._attack.gradients
        return self._attack(self._victim, batch, epsilon, seeds=seeds)


def make_ensemble(
    name: str,
    method: Method,
    network: nn.Module,
    *,
    steps: int,
    restarts: int = 1,
    norm: Norm = "linf",
) -> Ensemble:
    """The ensemble called `name`, one of `ENSEMBLES`.

    - fast: APGD on the measure of the task: Dice (segmentation) or the margin. `steps` and
      `restarts` are its own.
    - full: the fast one; then, each with the steps that `STEPS` gives for the size of the image,
      APGD onward from there, on the other losses and on the method's own training loss; of
      classifiers also Square, and FAB (L2: CW and DeepFool as well) where torchattacks is
      installed.

    Each gradient of a method is followed in every way that it offers (`Method.gradients`).

    Raises `UserError` for another name.
    """
    if name not in ENSEMBLES:
        raise UserError(f"attack: {name!r} is no ensemble; choose {' or '.join(ENSEMBLES)}.")
    draws = _DRAWS[name] if method.stochastic else 1
    ways = method.gradients(network)

    def apgd(
        loss: str, count: int, starts: int = 1, *, thorough: bool, onward: bool = False
    ) -> list[Member]:
        attack = APGD(steps=count, restarts=starts, norm=norm, draws=draws)
        return [
            Member(_named(f"apgd-{loss}", way), attack, victim, thorough, onward)
            for way, scores in ways.items()
            for victim in [ScoreVictim(method, network, loss, scores)]
        ]

    losses = method.task.losses
    # However many ways, about as many steps.
    members = apgd(losses.first, -(-steps // len(ways)), restarts, thorough=True)
    if name == FULL:
        count = full_steps(method.manifest.image_shape)
        members += apgd(losses.first, count, _RESTARTS, thorough=True, onward=True)
        for loss in losses.others:
            members += apgd(loss, count, thorough=losses.thorough)
        # As at the end of its training, where what grows with the epochs has its full weight.
        end = int(method.config.get("epochs", 1))
        own = TrainingVictim(method, network, Progress(end, end))
        attack = APGD(steps=count, norm=norm, draws=draws)
        members.append(Member("apgd-training", attack, own, losses.thorough))
        members += _extra(method, network, norm, count, draws)
    return Ensemble(ScoreVictim(method, network), members)


def adversary(
    name: str,
    method: Method,
    network: nn.Module,
    *,
    steps: int,
    restarts: int = 1,
    norm: Norm = "linf",
) -> Ensemble | Single:
    """The ensemble called `name`, or the single attack, on the cross-entropy of the scores.

    Raises `UserError` for an unknown name or an impossible parameter.
    """
    if name in ENSEMBLES:
        return make_ensemble(name, method, network, steps=steps, restarts=restarts, norm=norm)
    attack = make_attack(name, steps=steps, restarts=restarts, norm=norm)
    return Single(ScoreVictim(method, network), attack)


def full_steps(image_shape: Sequence[int]) -> int:
    """Steps of each member of the full ensemble for images (C, *spatial)."""
    size = math.prod(image_shape[1:])
    return next((steps for most, steps in STEPS.items() if size <= most), _LARGE)


def settings(ensemble: Ensemble | Single) -> list[dict[str, Any]]:
    """What an ensemble does, ready for JSON: its members in order, with all their parameters."""
    return [
        {
            "name": member.name,
            "steps": member.attack.steps,
            "restarts": member.attack.restarts,
            "norm": member.attack.norm,
            "draws": member.attack.draws,
            "gradients": member.attack.gradients,
            "queries": getattr(member.attack, "queries", 0),
            "attacks": "every sample" if member.thorough else "samples still right",
        }
        for member in ensemble.members
    ]


def left_out(method: Method, norm: Norm) -> list[str]:
    """Members of the full ensemble that cannot run where torchattacks is not installed."""
    absent = method.task.losses.to_boundary and not zoo.available()
    return [kind.__name__.lower() for kind in _borrowed(norm)] if absent else []


def _borrowed(norm: Norm) -> list[type[Attack]]:
    kinds: list[type[Attack]] = [zoo.FAB, zoo.CW, zoo.DeepFool]
    return [kind for kind in kinds if norm in kind.norms]


def _extra(method: Method, network: nn.Module, norm: Norm, count: int, draws: int) -> list[Member]:
    """Attacks that go about it in another way: without gradients, and to the nearest boundary."""
    if not method.task.losses.to_boundary:
        return []
    attacks: list[Attack] = []
    if norm in Square.norms:
        attacks.append(Square(steps=_QUERIES * count, draws=draws))
    if zoo.available():
        attacks += [kind(steps=count, norm=norm, draws=draws) for kind in _borrowed(norm)]
    victim = ScoreVictim(method, network, "margin")
    return [Member(type(attack).__name__.lower(), attack, victim) for attack in attacks]


def _named(attack: str, way: str) -> str:
    return attack if way == "own" else f"{attack} ({way})"
