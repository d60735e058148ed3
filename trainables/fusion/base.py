"""What every fusion model shares: its inputs, its loss and what it predicts."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.needs import MODALITIES
from trustsweep.data_pipelines.schema import Batch, Manifest, Modality, TaskName
from trustsweep.trainables.contract import Config, Loss, Method, Prediction, Progress
from trustsweep.trainables.fusion.encoders import Encoder, encoder
from trustsweep.trainables.fusion.inputs import gather, in_manifest_order, sources
from trustsweep.trainables.settings import number, whole
from trustsweep.trainables.tasks import OutcomeTask
from trustsweep.trainables.uncertainty import categorical_maps, ensemble_maps


@dataclass(frozen=True)
class Fused:
    """Output of a fusion network for a batch; modalities in the order of `inputs.sources`.

    Attributes:
        logits: (T, B, K) scores of T passes; the prediction is the mean of the distributions over
            the task's outcomes that they stand for.
        weights: (B, M) of the modalities, 0 for the absent and summing to 1 over the present; None
            where the method has none.
        more: Whatever else the method's own loss needs.
    """

    logits: Tensor
    weights: Tensor | None = None
    more: dict[str, Tensor] = field(default_factory=dict)


class FusionNetwork(nn.Module):
    """Encoders of all modalities, keyed by name, and the way in which they are fused.

    Attributes:
        encoders: Name to `Encoder`, by name in `inputs.sources` order; of tokens, the stem.
    """

    def __init__(self, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({_key(name): part for name, part in encoders.items()})

    def features(self, values: tuple[Tensor, ...], passes: int = 1) -> Tensor:
        """(T, B, M, D) of all modalities; those that are absent have features of nothing."""
        pairs = zip(self.encoders.values(), values, strict=True)
        return torch.stack([part(value, passes) for part, value in pairs], dim=2)

    @abstractmethod
    def forward(self, values: tuple[Tensor, ...], present: Tensor) -> Fused:
        """From the tensors of `inputs.gather` and its (B, M) bool `present` to the output."""


class FusionMethod(Method):
    """A model of several modalities, any of which may be absent from a sample: of its class, or of
    how long the patient lives.

    The outcomes of a task are its classes, or the event in each interval and none (`OutcomeTask`).
    A sample without any modality gets the uniform distribution over them and the loss of that
    (ln K for K classes) without gradient, whatever the model. Training minimises the cross-entropy
    of the prediction, the mean over passes of the distributions, plus what `terms` adds. A data set
    whose manifest names no modalities counts as one for each kind of data that it holds.

    Config: `width`, `depth` and `dim` of the encoders (see `encoders.encoder`), `dropout` in
    [0, 1).
    """

    tasks = (TaskName.CLASSIFICATION, TaskName.SURVIVAL)
    needs = MODALITIES
    uncertainties: ClassVar[tuple[str, ...]] = ("entropy", "least-confidence")

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data that do not fit."""
        super().__init__(config, manifest)
        assert isinstance(self.task, OutcomeTask)
        self.head: OutcomeTask = self.task
        #: Columns of scores.
        self.outputs = self.head.columns_of(manifest)
        self.width = whole(config, "width", low=1)
        self.depth = whole(config, "depth", low=1)
        self.dim = whole(config, "dim", low=2)
        self.dropout = number(config, "dropout", low=0, high=0.95)

    @abstractmethod
    def network(self) -> FusionNetwork:
        """A freshly initialised network over the manifest's modalities."""

    def terms(self, fused: Fused, batch: Batch, present: Tensor) -> dict[str, Tensor]:
        """Terms of the loss beside the cross-entropy of the prediction, by name: (B,) each."""
        return {}

    def combine(self, fused: Fused, present: Tensor) -> Tensor:
        """(B, outcomes) log-probabilities, for samples with at least one present modality."""
        return log_mean(self.head.log_outcomes(fused.logits))

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        values, present = gather(batch, self.manifest)
        fused = _exact(network(values, present))
        terms = {"cross-entropy": self.cross_entropy(fused, batch, present)}
        terms |= self.terms(fused, batch, present)
        nothing = ~present.any(dim=1)
        terms = {name: term.masked_fill(nothing, 0) for name, term in terms.items()}
        terms["cross-entropy"] = terms["cross-entropy"] + nothing * self._uniform_loss(fused, batch)
        per_sample = torch.stack(list(terms.values())).sum(dim=0)
        parts = {name: term.detach().mean() for name, term in terms.items()}
        return Loss(per_sample.mean(), per_sample, parts)

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        values, present = gather(batch, self.manifest)
        fused = _exact(network(values, present))
        anything = present.any(dim=1, keepdim=True)
        passes = torch.where(anything, self.head.log_outcomes(fused.logits), 0).softmax(dim=2)
        outcomes = torch.where(anything, self.combine(fused, present), 0)
        maps = {**categorical_maps(outcomes.softmax(dim=1)), **ensemble_maps(passes)}
        weights = fused.weights
        return Prediction(
            self.head.scores_of(outcomes),
            {name: maps[name] for name in self.uncertainties},
            modality_weights=None if weights is None else in_manifest_order(weights, self.manifest),
            exclusive=self.head.exclusive,
        )

    def cross_entropy(self, fused: Fused, batch: Batch, present: Tensor) -> Tensor:
        """(B,) of the prediction, in nats."""
        return -self.head.log_likelihood(self.combine(fused, present), batch)

    def unimodal_cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        """(T, B, M, K) of each modality's own head to (B, M): of the mean over passes, in nats."""
        return -self.head.log_likelihood(log_mean(self.head.log_outcomes(logits)), batch)

    def _uniform_loss(self, fused: Fused, batch: Batch) -> Tensor:
        """(B,) of the uniform distribution."""
        outcomes = self.head.log_outcomes(fused.logits[0]).detach()
        return -self.head.log_likelihood(torch.zeros_like(outcomes), batch)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those that the model takes, in its order."""
        return sources(self.manifest)

    def make_encoders(self, modalities: tuple[Modality, ...] | None = None) -> dict[str, Encoder]:
        """A fresh encoder for each of `modalities`, all of the manifest's if not given."""
        chosen = self.modalities if modalities is None else modalities
        return {
            modality.name: encoder(
                self.manifest,
                modality,
                width=self.width,
                depth=self.depth,
                dim=self.dim,
                dropout=self.dropout,
                seed=place,
            )
            for place, modality in enumerate(chosen)
        }


def over_present(values: Tensor, present: Tensor) -> Tensor:
    """Mean over the present modalities, (B, M, ...) to (B, ...); 0 where none is.

    `present` is (B, M, ...) bool, broadcastable.
    """
    return sum_present(values, present) / present.sum(dim=1).clamp(min=1)


def sum_present(values: Tensor, present: Tensor) -> Tensor:
    """Sum over the present modalities; see `over_present`."""
    return torch.where(present, values, 0).sum(dim=1)


def log_mean(log_probability: Tensor) -> Tensor:
    """(T, ...) log-probabilities of T passes to (...), of their mean: log-mean-exp."""
    return log_probability.logsumexp(dim=0) - math.log(len(log_probability))


def softmax_present(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the present modalities, along the last axis; exactly 0 for the absent.

    Args:
        scores: (..., M).
        present: (..., M) bool, broadcastable. Where none is present all weights are 0.
    """
    masked = scores.masked_fill(~present, -torch.inf)
    nothing = ~present.any(dim=-1, keepdim=True)
    return masked.masked_fill(nothing, 0).softmax(dim=-1).masked_fill(~present, 0)


def by_modality(heads: nn.ModuleDict, features: Tensor) -> Tensor:
    """(..., M, D) through the head of each modality to (..., M, outputs)."""
    return torch.stack([head(features[..., m, :]) for m, head in enumerate(heads.values())], dim=-2)


def _exact(fused: Fused) -> Fused:
    """In float32 whatever autocast made of it."""
    return Fused(
        fused.logits.float(),
        None if fused.weights is None else fused.weights.float(),
        {name: value.float() for name, value in fused.more.items()},
    )


def _key(name: str) -> str:
    """A name as the key of a module: no dot may stand there, nor the name of what a module has."""
    return "of_" + name.replace(".", ":")
