"""Binary segmentation: classical (sigmoid) and evidential (Beta per pixel), with a U-Net or others.

The methods bear the name of the default network.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.needs import IMAGES
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.contract import Config, Loss, Method, Prediction, Progress
from trustsweep.trainables.losses import (
    annealing,
    cross_entropy,
    marginal_ace,
    misleading_evidence,
    soft_dice,
    split_by_truth,
)
from trustsweep.trainables.networks import chosen
from trustsweep.trainables.patches import Patches
from trustsweep.trainables.registry import RISKS
from trustsweep.trainables.settings import number, word
from trustsweep.trainables.uncertainty import bernoulli_maps, beta_maps


class _UNet(Method):
    """What both have in common: the network, and a loss that is a sum of named terms."""

    tasks = (TaskName.SEGMENTATION,)
    needs = IMAGES
    outputs: int

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data without masks."""
        super().__init__(config, manifest)
        self._family = chosen(config, manifest, "pixels", default="unet")
        self.patches = Patches.of(config)
        self._dice_weight = number(config, "dice_weight", low=0)

    def network(self) -> nn.Module:
        return self._family.build(self.outputs)

    def _output(self, network: nn.Module, batch: Batch) -> Tensor:
        """(B, outputs, *spatial): what the network gives for the whole images."""
        if self.patches is None:
            output: Tensor = network(batch.image)
            return output
        return self.patches.stitched(network, batch.image)

    def _dice(self, probability: Tensor, mask: Tensor) -> Tensor:
        return self._dice_weight * soft_dice(probability, mask)


class ClassicalUNet(_UNet):
    """Sigmoid output; pixel-wise cross-entropy plus weighted soft Dice and calibration error.

    Config: `network` (of those for pixels in `NETWORKS`) and its own, `dice_weight` and
    `ace_weight` (>= 0), the weight of `losses.marginal_ace`.
    """

    uncertainties = ("bernoulli-variance", "entropy")
    outputs = 1

    def __init__(self, config: Config, manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self._ace_weight = number(config, "ace_weight", low=0)

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        logit, mask = self._output(network, batch).float(), _mask(batch)
        bce = cross_entropy(logit, mask).flatten(1).mean(1)
        p = logit.sigmoid()
        terms = {"bce": bce, "dice": self._dice(p, mask)}
        if self._ace_weight:
            terms["ace"] = self._ace_weight * marginal_ace(p, mask)
        return _sum(terms)

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        scores = self.scores(network, batch)
        maps = bernoulli_maps(scores[:, 0].sigmoid())
        return Prediction(scores, {name: maps[name] for name in self.uncertainties})

    def scores(self, network: nn.Module, batch: Batch) -> Tensor:
        return self._output(network, batch).float()


class EvidentialUNet(_UNet):
    """Softplus evidence for and against the foreground: Beta(e⁺ + 1, e⁻ + 1) per pixel.

    Loss: the risk, plus the annealed KL of misleading evidence, plus soft Dice on p̂
    (Sensoy et al. 2018, arXiv 1806.01768; Zou et al. 2022, arXiv 2206.09309, there on raw α).

    Config: `network` (of those for pixels in `NETWORKS`) and its own, `dice_weight` (>= 0), `risk`
    (one of `RISKS`), `kl_weight` (λ >= 0) and `kl_anneal_epochs` (λ grows linearly from 0 over so
    many epochs; 0 for λ at once).
    """

    uncertainties = (
        "vacuity",
        "beta-variance",
        "entropy",
        "expected-entropy",
        "mutual-information",
    )
    outputs = 2

    def __init__(self, config: Config, manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self._risk = RISKS[word(config, "risk", RISKS)]
        self._kl_weight = number(config, "kl_weight", low=0)
        self._kl_anneal_epochs = number(config, "kl_anneal_epochs", low=0)

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        a, b = _beta(self._output(network, batch))
        mask = _mask(batch)
        true, other = split_by_truth(a, b, mask)
        weight = self._kl_weight * annealing(progress.epoch, self._kl_anneal_epochs)
        return _sum(
            {
                "risk": self._risk(true, other).flatten(1).mean(1),
                "kl": weight * misleading_evidence(other).flatten(1).mean(1),
                "dice": self._dice(a / (a + b), mask),
            }
        )

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        a, b = _beta(self._output(network, batch))
        maps = beta_maps(a[:, 0], b[:, 0])
        return Prediction(_log_odds(a, b), {name: maps[name] for name in self.uncertainties})

    def scores(self, network: nn.Module, batch: Batch) -> Tensor:
        return _log_odds(*_beta(self._output(network, batch)))


def _beta(output: Tensor) -> tuple[Tensor, Tensor]:
    """The parameters (a, b) >= 1, each (B, 1, *spatial), of two output channels.

    In float32 whatever the autocast: digamma and logarithms of bfloat16 keep two digits. Softplus,
    as the gradient of ReLU evidence dies at 0.
    """
    a, b = (F.softplus(output.float()) + 1).split(1, dim=1)
    return a, b


def _log_odds(a: Tensor, b: Tensor) -> Tensor:
    """ln p̂/(1 − p̂) of the mean p̂ = a/(a + b); cross-entropy of it is the type-II risk."""
    return a.log() - b.log()


def _mask(batch: Batch) -> Tensor:
    if batch.mask is None:
        raise ValueError("segmentation needs batch.mask")
    return batch.mask.float()


def _sum(terms: dict[str, Tensor]) -> Loss:
    """The sum of terms given per sample, (B,) each."""
    per_sample = sum(terms.values(), start=next(iter(terms.values())).new_zeros(()))
    parts = {name: term.detach().mean() for name, term in terms.items()}
    return Loss(per_sample.mean(), per_sample, parts)
