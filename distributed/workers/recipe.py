"""The training recipe of any network: optimiser, schedule, class weights, weight averaging.

Nothing here keeps a count of its own: rates follow from how far the training has come, so that a
restart from a checkpoint changes nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.search_spaces.space import METHOD
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.registry import METHODS
from trustsweep.trainables.settings import number, whole, word
from trustsweep.trainables.tasks import Task

OPTIMISERS = ("adamw", "sgd")
CLASS_BALANCES = ("none", "weights", "sqrt-weights")
#: Of SGD, and of AdamW's first moment, which a one-cycle schedule moves between these (Smith 2018).
_MOMENTUM, _ONE_CYCLE_MOMENTA = 0.9, (0.85, 0.95)
#: One cycle: the share of the training in which the rate rises, from 1/25 of its top; it ends at
#: 1e-4 of where it began. The defaults of torch's `OneCycleLR`.
_RISE, _START, _END = 0.3, 1 / 25, 1 / 25 * 1e-4


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(done: float) -> float:
    floor = _START if done < _RISE else _END
    return floor + (1 - floor) * _risen(done)


def _risen(done: float) -> float:
    """How far a one-cycle schedule is between its ends, 0, and its top, 1."""
    if done < _RISE:
        return 1 - _cosine(done / _RISE)
    return _cosine((done - _RISE) / (1 - _RISE))


#: Share of the training that is done, in [0, 1), to a factor of the learning rate. Cosine annealing
#: to zero (Loshchilov & Hutter, 1608.03983), one cycle (Smith & Topin, 1708.07120), or none.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "one-cycle": _one_cycle,
    "constant": lambda done: 1.0,
}


class TrainingRecipe:
    """Optimiser, schedule and loss weights of one trial.

    Config: `optimiser` ("adamw"; "sgd" has Nesterov's momentum of 0.9), its `learning_rate` (of
    SGD `sgd_learning_rate`) and `weight_decay`; `schedule`, one of `SCHEDULES`; `warm_up`, the
    share of the training in [0, 1) in which the rate rises linearly from 0 to what the schedule
    gives; `class_balance`, see `class_weights` ("weights", or "sqrt-weights" for their square
    roots): the loss of each image, pixel or label times the weight of its class; `ema` in [0, 1),
    see `Average`; `patience`, see `Best`.

    Args:
        task: Of the method.
        prior: Has the frequencies of classes that weights need; may be left out where nothing is
            trained.

    Raises:
        UserError: for a config value that is missing or cannot be.
    """

    def __init__(self, config: Mapping[str, Any], task: Task, prior: Prior | None = None) -> None:
        self._optimiser = word(config, "optimiser", OPTIMISERS)
        rate = "sgd_learning_rate" if self._optimiser == "sgd" else "learning_rate"
        self._rate = number(config, rate, low=0)
        self._weight_decay = number(config, "weight_decay", low=0)
        self._schedule = word(config, "schedule", SCHEDULES)
        self._warm_up = number(config, "warm_up", low=0, high=0.9)
        self.ema = number(config, "ema", low=0, high=0.99999)
        self.patience = whole(config, "patience", low=0)
        self._weights: Tensor | None = None
        self._classed = task.classed
        balance = word(config, "class_balance", CLASS_BALANCES)
        self._weighted = balance != "none"
        if not self._weighted:
            return
        check_balance(task, str(config[METHOD]))
        if prior is not None and (frequencies := task.frequencies(prior)).size:
            root = balance == "sqrt-weights"
            self._weights = class_weights(torch.as_tensor(frequencies), root=root)

    @property
    def element_weights(self) -> Tensor | None:
        """For `Method.class_weights`: None where images are weighed instead, by `weighted`.

        Raises ValueError if class weights are on and the train split's frequencies are unknown.
        """
        if not self._weighted or self._classed:
            return None
        if self._weights is None:
            raise ValueError("class weights need the masks or labels of the train split")
        return self._weights

    def make_optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser of the network's parameters."""
        parameters = network.parameters()
        more: dict[str, Any] = {"weight_decay": self._weight_decay, "foreach": True}
        if self._optimiser == "sgd":
            return torch.optim.SGD(
                parameters, lr=self._rate, momentum=_MOMENTUM, nesterov=True, **more
            )
        return torch.optim.AdamW(parameters, lr=self._rate, **more)

    def factor(self, progress: Progress) -> float:
        """The factor of the learning rate, in [0, 1]."""
        done = progress.epoch / progress.epochs
        factor = SCHEDULES[self._schedule](done)
        return factor * done / self._warm_up if done < self._warm_up else factor

    def set_rates(self, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
        """Learning rate and, in one cycle, momentum of the step that comes next."""
        for group in optimiser.param_groups:
            group["lr"] = self._rate * self.factor(progress)
            if self._schedule != "one-cycle":
                continue
            low, high = _ONE_CYCLE_MOMENTA
            momentum = high - (high - low) * _risen(progress.epoch / progress.epochs)
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def weighted(self, total: Tensor, per_sample: Tensor, label: Tensor | None) -> Tensor:
        """The loss that training minimises: `total`, or the mean of samples weighted by their
        class, where each has one.

        Raises ValueError if class weights are on and the train split's counts are unknown.
        """
        if not self._weighted or not self._classed:
            return total
        if self._weights is None or label is None:
            raise ValueError("class weights need the labels of the train split")
        self._weights = self._weights.to(per_sample.device)
        return (per_sample * self._weights[label]).mean()


def check_balance(task: Task, method: str) -> None:
    """Raises `UserError` where neither images nor their pixels or labels can be weighed."""
    if not task.classed and not METHODS.fact(method, "weighs_classes"):
        raise UserError(
            f"class_balance: {task} has no class of each image, and {method} does not weigh pixels "
            "or labels. Use none."
        )


def class_weights(frequencies: Tensor, *, root: bool = False) -> Tensor:
    """Weights in float32, in inverse proportion to how often a class occurs, or its square root.

    Of the K classes that occur, with a share s_c each, 1 / (K s_c), or 1 / √s_c over Σ √s_c; the
    mean over all samples (or pixels, or labels) is 1. A class that does not occur has 0.

    Args:
        frequencies: (..., K) in any unit; each row is a question of its own.
    """
    shares = frequencies / frequencies.sum(dim=-1, keepdim=True)
    occurs = shares > 0
    inverse = torch.where(occurs, 1 / torch.where(occurs, shares, 1.0), 0.0)
    weights = inverse.sqrt() if root else inverse
    return (weights / (weights * shares).sum(dim=-1, keepdim=True)).nan_to_num(0.0).float()


class Average(nn.Module):
    """The exponential moving average of a network's weights over optimiser steps.

    After t updates, W ← d W + (1 − d) w with d = min(decay, (1 + t)/(10 + t)), so that the first
    weights are soon forgotten (as TensorFlow's `ExponentialMovingAverage`). Buffers are copied.

    Args:
        network: Its weights start the average; left as it is.
        decay: In (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after an optimiser step."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        mine: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for buffer, value in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(value)
        self.updates += 1
