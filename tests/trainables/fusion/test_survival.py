"""Survival from several modalities: distributions over outcomes, averaged, and their likelihood."""

import dataclasses
import math

import pytest
import torch

from tests.trainables.fusion.test_contract import NOW, TOYS, build, draw, every_model, patterns
from trustsweep.data_pipelines.schema import Batch, FollowUp, Manifest, TaskName
from trustsweep.trainables.fusion.base import FusionMethod
from trustsweep.trainables.fusion.inputs import gather
from trustsweep.trainables.survival import hazard_labels, log_odds, log_outcomes

MANIFEST = dataclasses.replace(
    TOYS["image and table"],
    tasks=(TaskName.SURVIVAL,),
    follow_up=FollowUp(unit="days", edges=(0.0, 1.0, 2.0, 3.0, 4.0)),
)


def followed(manifest: Manifest) -> Batch:
    batch = draw(manifest, patterns(manifest).repeat(2, 1))
    interval = torch.arange(len(batch)) % 4.0
    event = (torch.arange(len(batch)) % 3 > 0).float()
    return dataclasses.replace(
        batch, label=None, time=interval + 0.5, event=event, interval=interval
    )


def nll(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """As a sum of binary cross-entropies."""
    assert batch.event is not None
    assert batch.interval is not None
    labels = hazard_labels(batch.event, batch.interval, 4)
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        scores, labels.nan_to_num(), reduction="none"
    )
    return (each * ~labels.isnan()).sum(dim=1)


@every_model
def test_survival_is_predicted_trained_and_uniform_without_a_modality(name: str) -> None:
    model, network = build(name, MANIFEST)
    batch = followed(MANIFEST)
    prediction = model.predict(network, batch)
    assert prediction.scores.shape == (8, 4)
    assert not prediction.exclusive
    nothing = ~patterns(MANIFEST).repeat(2, 1).any(dim=1)
    outcomes = log_outcomes(prediction.scores).exp()
    torch.testing.assert_close(outcomes[nothing], torch.full((2, 5), 0.2))
    assert prediction.uncertainty["entropy"][nothing].tolist() == pytest.approx([math.log(5)] * 2)
    assert not torch.allclose(outcomes[~nothing], torch.full((6, 5), 0.2), atol=1e-3)
    loss = model.loss(network, batch, NOW)
    alone = nll(log_odds(torch.zeros(2, 5)), batch.select(nothing.nonzero().flatten().tolist()))
    torch.testing.assert_close(loss.per_sample[nothing], alone)
    loss.total.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0


@pytest.mark.parametrize("name", ["healnet", "early-fusion", "mda", "drifa-net"])
def test_the_loss_is_the_likelihood_of_the_prediction(name: str) -> None:
    model, network = build(name, MANIFEST)
    batch = followed(MANIFEST)
    expected = nll(model.predict(network, batch).scores, batch)
    torch.testing.assert_close(model.loss(network, batch, NOW).per_sample, expected)


def test_passes_are_averaged_as_distributions() -> None:
    model, network = build("draf", MANIFEST)
    assert isinstance(model, FusionMethod)
    network.train()
    batch = followed(MANIFEST)
    torch.manual_seed(1)
    fused = network(*gather(batch, MANIFEST))
    assert len(fused.logits) == 3
    mean = log_outcomes(fused.logits).exp().mean(dim=0)
    assert not torch.allclose(*log_outcomes(fused.logits[:2]).exp())
    torch.manual_seed(1)
    scores = model.predict(network, batch).scores
    there = patterns(MANIFEST).repeat(2, 1).any(dim=1)
    torch.testing.assert_close(log_outcomes(scores).exp()[there], mean[there])
