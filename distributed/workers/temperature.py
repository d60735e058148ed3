"""Temperature scaling of any finished model: one number, fitted on the validation split.

Scores are divided by T before they become probabilities (Guo et al. 2017, arXiv 1706.04599). It
changes confidence, but no predicted class and no decision at one half: the cheap baseline that a
method with better calibration has to beat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks.engine import frozen
from trustsweep.trainables.contract import Loss, Method, Prediction, Progress

#: T is kept within these: of a split without an error the likelihood grows without end.
RANGE = (0.05, 20.0)
#: Pixels of an image that T is fitted on at most, evenly spaced.
_PIXELS = 1 << 14
#: Halvings of the interval of ln T: 6 / 2^40 is far below what float32 scores tell.
_HALVINGS = 40
#: A score is kept within this before it is divided; beyond it a probability is 0 or 1 anyway.
_LARGEST = 1e4


class Scaled(Method):
    """Another method whose scores are divided by a temperature.

    Uncertainty maps are those of the method, which T does not touch.
    """

    def __init__(self, inner: Method, temperature: float) -> None:
        # Of the instance: a class cannot know what it will be wrapped around.
        self.tasks = inner.tasks  # type: ignore[misc]
        super().__init__(inner.config, inner.manifest)
        self._inner = inner
        self._temperature = temperature
        self.uncertainties = inner.uncertainties  # type: ignore[misc]
        self.stochastic = inner.stochastic  # type: ignore[misc]

    def network(self) -> nn.Module:
        return self._inner.network()

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        return self._inner.loss(network, batch, progress)

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        prediction = self._inner.predict(network, batch)
        return dataclasses.replace(prediction, scores=prediction.scores / self._temperature)

    def scores(self, network: nn.Module, batch: Batch) -> Tensor:
        return self._inner.scores(network, batch) / self._temperature

    def gradients(self, network: nn.Module) -> dict[str, Callable[[Batch], Tensor]]:
        def cooled(scores: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
            return lambda batch: scores(batch) / self._temperature

        return {name: cooled(own) for name, own in self._inner.gradients(network).items()}


def fit_temperature(method: Method, network: nn.Module, batches: Iterable[Batch]) -> float:
    """T in `RANGE` of the least NLL on these samples; every image or pixel counts alike.

    The NLL is convex in β = 1/T, and its derivative, Σ (expected − true score), is what is brought
    to 0. Of images of more than 16,384 pixels as many are taken, evenly spaced. 1 without a score
    that is a number.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    with frozen(network), torch.inference_mode():
        for batch in batches:
            kept.append(method.task.labelled_scores(method.scores(network, batch), batch))
    scores = torch.cat([part for part, _ in kept]).clamp(-_LARGEST, _LARGEST)
    truth = torch.cat([part for _, part in kept])
    numbers = ~scores.isnan().any(dim=1)
    scores, truth = scores[numbers], truth[numbers]
    if not len(scores):
        return 1.0
    low, high = (torch.tensor(end, dtype=torch.float64).log().item() for end in RANGE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # Positive where the model is still too sure: T must rise.
        if _slope(scores, truth, -middle) > 0:
            low = middle
        else:
            high = middle
    return float(torch.tensor((low + high) / 2, dtype=torch.float64).exp())


def _slope(scores: Tensor, truth: Tensor, log_beta: float) -> float:
    """Of the NLL in β."""
    beta = torch.tensor(log_beta, dtype=torch.float64).exp()
    if scores.shape[1] == 1:
        logit = scores[:, 0]
        return float(((logit * beta).sigmoid() - truth).mul(logit).sum())
    expected = (F.softmax(scores * beta, dim=1) * scores).sum(1)
    return float((expected - scores.gather(1, truth[:, None])[:, 0]).sum())
