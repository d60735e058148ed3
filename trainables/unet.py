"""Segmentation: classical (sigmoid, softmax) and evidential (Beta, Dirichlet).

With a U-Net or another network; the methods bear the name of the default network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.needs import IMAGES
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.contract import Config, Loss, Method, Prediction, Progress
from trustsweep.trainables.losses import (
    annealing,
    class_weight,
    marginal_ace,
    misleading_evidence,
    soft_dice,
    split_by_truth,
)
from trustsweep.trainables.networks import chosen
from trustsweep.trainables.patches import Patches
from trustsweep.trainables.registry import RISKS
from trustsweep.trainables.settings import number, word
from trustsweep.trainables.uncertainty import (
    bernoulli_maps,
    categorical_maps,
    dirichlet_maps,
    mean_maps,
)


class _UNet(Method):
    """What both have in common: the network, and a loss that is a sum of named terms.

    Of several regions, each is predicted like a single lesion, and terms and uncertainty maps are
    means over them.
    """

    tasks = (
        TaskName.SEGMENTATION,
        TaskName.MULTICLASS_SEGMENTATION,
        TaskName.REGION_SEGMENTATION,
    )
    needs = IMAGES
    weighs_classes = True

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data without masks."""
        super().__init__(config, manifest)
        self.outputs = self.task.outputs(manifest)
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

    def _label(self, batch: Batch) -> Tensor:
        """Long: the class of each pixel (B, *spatial), or 0 and 1 of each region (B, R, ...)."""
        mask = self.task.truth(batch)
        return mask[:, 0].long() if self.task.exclusive else (mask > 0.5).long()

    def _of_pixels(self, loss: Tensor, label: Tensor) -> Tensor:
        """(B,): the mean over an image's pixels, weighed by their class."""
        weight = class_weight(self.class_weights, label, exclusive=self.task.exclusive)
        return (loss * weight).flatten(1).mean(1)

    def _dice(self, foreground: Tensor, label: Tensor) -> Tensor:
        """Of the probability (B, C, *spatial) of each foreground."""
        # Without the background.
        member = self._members(label)[:, -foreground.shape[1] :]
        return self._dice_weight * soft_dice(foreground, member)

    def _members(self, label: Tensor) -> Tensor:
        """(B, K, *spatial) 0 or 1: of each class with the background, or of each region."""
        if not self.task.exclusive:
            return label.float()
        return F.one_hot(label, self.outputs).movedim(-1, 1).float()


class ClassicalUNet(_UNet):
    """Sigmoid or softmax output; cross-entropy plus weighted soft Dice and calibration error.

    Config: `network` (of those for pixels in `NETWORKS`) and its own, `dice_weight` and
    `ace_weight` (>= 0), the weight of `losses.marginal_ace`.
    """

    uncertainties = ("bernoulli-variance", "entropy")

    def __init__(self, config: Config, manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self._ace_weight = number(config, "ace_weight", low=0)

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        logit, label = self.scores(network, batch), self._label(batch)
        if self.task.exclusive:
            p = logit.softmax(dim=1)
            foreground = p[:, 1:]
            entropy = F.cross_entropy(logit, label, reduction="none")
        else:
            p = foreground = logit.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(logit, label.float(), reduction="none")
        terms = {
            "cross-entropy": self._of_pixels(entropy, label),
            "dice": self._dice(foreground, label),
        }
        if self._ace_weight:
            terms["ace"] = self._ace_weight * marginal_ace(p, self._members(label))
        return _sum(terms)

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        scores = self.scores(network, batch)
        if self.task.exclusive:
            maps = categorical_maps(scores.softmax(dim=1))
        else:
            maps = mean_maps(bernoulli_maps(scores.sigmoid()))
        offered = {name: maps[name] for name in self.uncertainties}
        return Prediction(scores, offered, exclusive=self.task.exclusive)

    def scores(self, network: nn.Module, batch: Batch) -> Tensor:
        return self._output(network, batch).float()


class EvidentialUNet(_UNet):
    """Softplus evidence for each class: Dirichlet(evidence + 1) per pixel; of a lesion, or of each
    region, evidence for and against it: a Beta.

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

    def __init__(self, config: Config, manifest: Manifest) -> None:
        super().__init__(config, manifest)
        if not self.task.exclusive:
            self.outputs *= 2
        self._risk = RISKS[word(config, "risk", RISKS)]
        self._kl_weight = number(config, "kl_weight", low=0)
        self._kl_anneal_epochs = number(config, "kl_anneal_epochs", low=0)

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        alpha, label = self._alpha(network, batch), self._label(batch)
        true, others = split_by_truth(alpha, label)
        weight = self._kl_weight * annealing(progress.epoch, self._kl_anneal_epochs)
        mean = alpha[1:] / alpha.sum(0)
        return _sum(
            {
                "risk": self._of_pixels(self._risk(true, others), label),
                "kl": weight * misleading_evidence(others).flatten(1).mean(1),
                "dice": self._dice(mean.movedim(0, 1) if self.task.exclusive else mean[0], label),
            }
        )

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        alpha = self._alpha(network, batch)
        maps = dirichlet_maps(alpha.movedim(0, 1))
        if not self.task.exclusive:
            maps = mean_maps(maps)
        offered = {name: maps[name] for name in self.uncertainties}
        return Prediction(self._scores(alpha), offered, exclusive=self.task.exclusive)

    def scores(self, network: nn.Module, batch: Batch) -> Tensor:
        return self._scores(self._alpha(network, batch))

    def _alpha(self, network: nn.Module, batch: Batch) -> Tensor:
        """The parameters >= 1: (K, B, *spatial) of the classes, the background first; or (2, B, R,
        *spatial) against and for each region, of output channels for it, then against it.

        In float32 whatever the autocast: digamma and logarithms of bfloat16 keep two digits.
        Softplus, as the gradient of ReLU evidence dies at 0.
        """
        alpha = F.softplus(self._output(network, batch).float()) + 1
        if self.task.exclusive:
            return alpha.movedim(1, 0)
        return torch.stack([*reversed(alpha.chunk(2, dim=1))])

    def _scores(self, alpha: Tensor) -> Tensor:
        """ln α, as softmax(ln α) = p̂; of a Beta ln p̂/(1 − p̂) = ln a − ln b. Cross-entropy of them
        is the type-II risk."""
        if self.task.exclusive:
            return alpha.log().movedim(0, 1)
        return alpha[1].log() - alpha[0].log()


def _sum(terms: dict[str, Tensor]) -> Loss:
    """The sum of terms given per sample, (B,) each."""
    per_sample = sum(terms.values(), start=next(iter(terms.values())).new_zeros(()))
    parts = {name: term.detach().mean() for name, term in terms.items()}
    return Loss(per_sample.mean(), per_sample, parts)
