"""Fidelity: how much data, resolution and attack effort a trial uses before each rung.

Whatever a study scales (`search_spaces.study.Fidelity`) has one value up to a rung and in the
evaluation at it, the same for every trial, so that trials are comparable there. After the last rung
everything is at full fidelity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.search_spaces.space import COMMON, Parameter, Space, Value
from trustsweep.search_spaces.study import Fidelity, Scheduler, Study
from trustsweep.trainables.registry import METHODS

#: Sizes of images are multiples of it, so that networks that halve them four times need no padding.
_MULTIPLE = 16
#: Parameters that shape the network, the sample order or the whole training.
_CONSTANT = ("seed", "epochs", "batch_size", "patience", "full_size")


@dataclass(frozen=True, kw_only=True)
class Level:
    """What an epoch of training, or an evaluation, uses; shares in (0, 1], 1 for all.

    Attributes:
        data: Of the steps of the epoch.
        image_size: Of the pixels along each axis.
        parameters: Of whole numbers of the config, by name.
        validation: Of the samples of an evaluation.
        evaluation_steps: Of the gradient steps of the evaluation's attack.
        clean: Whether an evaluation leaves out corruptions and attacks.
    """

    data: float = 1.0
    image_size: float = 1.0
    parameters: Mapping[str, float] = field(default_factory=dict)
    validation: float = 1.0
    evaluation_steps: float = 1.0
    clean: bool = False

    def scaled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config with its share of each of `parameters` that it has."""
        shares = {name: share for name, share in self.parameters.items() if name in config}
        return {**config, **{name: portion(config[name], share) for name, share in shares.items()}}

    def size(self, full: Sequence[int]) -> tuple[int, ...]:
        """The size of images: the nearest multiple of 16 on each axis, at least 16 and at most
        what they have."""
        if self.image_size == 1:
            return tuple(full)
        multiples = [max(1, round(self.image_size * n / _MULTIPLE)) for n in full]
        return tuple(min(n, m * _MULTIPLE) for n, m in zip(full, multiples, strict=True))


#: The last evaluation, and training after the last rung.
FULL = Level()
#: What every epoch can afford.
CLEAN = Level(clean=True)


class Levels:
    """The levels of one trial.

    Args:
        fidelity: What the study scales.
        scheduler: Where the rungs are.
        epochs: The trial's own length.
    """

    def __init__(self, fidelity: Fidelity, scheduler: Scheduler, epochs: int) -> None:
        self._fidelity = fidelity
        self._rungs = len(scheduler.shares)
        self._ends = scheduler.rung_epochs(epochs)

    def rung(self, epoch: int) -> int | None:
        """The rung that stands where so many epochs are done; None for none."""
        return self._ends.get(epoch)

    def training(self, epochs_done: int) -> Level:
        """Of the epoch that comes after so many: that of the next rung, full after the last."""
        coming = [end for end in self._ends if end > epochs_done]
        return self.evaluation(self._ends[min(coming)] if coming else None)

    def evaluation(self, rung: int | None) -> Level:
        """Of the evaluation at a rung; None stands for the last one, which is full."""
        if rung is None:
            return FULL

        def share(start: float) -> float:
            return Fidelity.share(start, rung, self._rungs)

        fidelity = self._fidelity
        return Level(
            data=share(fidelity.data),
            image_size=share(fidelity.image_size),
            parameters={name: share(start) for name, start in fidelity.parameters.items()},
            validation=share(fidelity.validation),
            evaluation_steps=share(fidelity.evaluation_steps),
        )


def portion(whole: int, share: float) -> int:
    """A share of a whole number, rounded; at least 1 and at most the number itself."""
    return min(whole, max(1, round(share * whole)))


def check(study: Study, space: Space, manifest: Manifest) -> None:
    """Raises `UserError` for a key of `fidelity.parameters` that cannot grow during a training.

    `space` is the study's own.
    """
    for name, share in study.fidelity.parameters.items():
        key = f"fidelity.parameters.{name}"
        owners = [t for t in study.methods if name in space.of(t)]
        if not owners:
            known = sorted(
                {n for t in study.methods for n, p in space.of(t).items() if _grows(n, p)}
            )
            raise UserError(
                f"{key}: no method of this study has such a parameter{nearest(name, known)} "
                f"Whole numbers here: {', '.join(known)}."
            )
        if not all(_grows(name, space.of(t)[name]) for t in owners):
            raise UserError(
                f"{key}: only a whole number that a training may change on its way can grow, such "
                "as attack_steps. Leave it out."
            )
        # What every method has is the training loop's, and shapes no network.
        for method in owners if name not in space.parameters[COMMON] else ():
            if _shapes(method, space, manifest) != _shapes(
                method, space, manifest, Level(parameters={name: share})
            ):
                raise UserError(
                    f"{key}: it shapes the network of {method}, which is built once for a "
                    "whole training. Leave it out."
                )


def _grows(name: str, parameter: Parameter) -> bool:
    given = (parameter.value, parameter.low, parameter.high, *(parameter.choices or ()))
    values: list[Value] = [value for value in given if value is not None]
    return name not in _CONSTANT and all(type(value) is int for value in values)


def _shapes(
    method: str, space: Space, manifest: Manifest, level: Level = FULL
) -> dict[str, tuple[int, ...]]:
    config = level.scaled(space.defaults(method))
    network = METHODS[method](config, manifest).network()
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
