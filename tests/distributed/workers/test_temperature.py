"""Temperature scaling: what is fitted, and what it may and may not change."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.distributed.workers.temperature import RANGE, Scaled, fit_temperature
from trustsweep.trainables.contract import Method, Prediction
from trustsweep.trainables.tasks import task_named

torch.set_num_threads(1)


class Told(Method):
    """Scores are what the image holds: (B, K) or (B, 1, H, W)."""

    uncertainties = ("entropy",)

    def network(self):
        return nn.Identity()

    def loss(self, network, batch, progress):
        raise NotImplementedError

    def predict(self, network, batch):
        return Prediction(network(batch.image), {"entropy": batch.image.sum(1)})


class Classes(Told):
    tasks = (TaskName.CLASSIFICATION,)


class Masks(Told):
    tasks = (TaskName.SEGMENTATION,)


def made(kind, classes=("a", "b")):
    manifest = Manifest(
        name="toy", tasks=kind.tasks, image_shape=(1, 4, 4), image_scale=1.0, classes=classes,
        mean=(0.0,), std=(1.0,), split_counts={}, columns={}, fingerprint="0",
    )  # fmt: skip
    return kind({}, manifest)


def batches(scores, **truth):
    whole = Batch(sample_id=tuple(map(str, range(len(scores)))), image=scores, **truth)
    half = len(scores) // 2
    return [whole.select(range(half)), whole.select(range(half, len(scores)))]


def test_the_temperature_that_data_were_drawn_with_is_found():
    torch.manual_seed(0)
    logits = 3 * torch.randn(40_000, 3)
    label = torch.distributions.Categorical(logits=logits / 2.5).sample()
    found = fit_temperature(made(Classes), nn.Identity(), batches(logits, label=label))
    assert found == pytest.approx(2.5, rel=0.03)
    odds = 3 * torch.randn(40_000, 1)
    label = torch.bernoulli((odds[:, 0] / 0.6).sigmoid()).long()
    found = fit_temperature(made(Classes), nn.Identity(), batches(odds, label=label))
    assert found == pytest.approx(0.6, rel=0.05)


def test_no_other_temperature_has_a_smaller_loss():
    torch.manual_seed(1)
    odds = 4 * torch.randn(60, 1, 12, 12)
    mask = torch.bernoulli((odds / 3 + 0.3).sigmoid())
    found = fit_temperature(made(Masks), nn.Identity(), batches(odds, mask=mask))

    def nll(temperature):
        scaled = odds / temperature
        return nn.functional.binary_cross_entropy_with_logits(scaled, mask).item()

    assert nll(found) <= min(nll(found * factor) for factor in (0.9, 0.97, 1.03, 1.1))


def test_of_large_images_an_even_part_is_enough():
    torch.manual_seed(2)
    odds = 4 * torch.randn(2, 1, 300, 300)
    mask = torch.bernoulli((odds / 2).sigmoid())
    found = fit_temperature(made(Masks), nn.Identity(), batches(odds, mask=mask))
    assert found == pytest.approx(2, rel=0.1)


def test_without_an_error_or_a_number_it_stays_in_range():
    odds = torch.tensor([[3.0], [-2.0], [math.inf], [-math.inf]])
    label = torch.tensor([1, 0, 1, 0])
    sure = fit_temperature(made(Classes), nn.Identity(), batches(odds, label=label))
    assert sure == pytest.approx(RANGE[0], rel=1e-6)
    wrong = fit_temperature(made(Classes), nn.Identity(), batches(odds, label=1 - label))
    assert wrong == pytest.approx(RANGE[1], rel=1e-6)
    nothing = torch.full((4, 1), torch.nan)
    assert fit_temperature(made(Classes), nn.Identity(), batches(nothing, label=label)) == 1


@pytest.mark.parametrize("classes", [1, 3])
def test_no_answer_moves_and_the_maps_stay(classes):
    torch.manual_seed(3)
    scores = torch.randn(50, classes)
    label = torch.zeros(50, dtype=torch.long)
    batch = batches(scores, label=label)[0]
    plain, scaled = made(Classes), Scaled(made(Classes), 3.0)
    mine, theirs = (t.predict(nn.Identity(), batch) for t in (scaled, plain))
    if classes == 1:
        assert torch.equal(mine.probability > 0.5, theirs.probability > 0.5)
    else:
        assert torch.equal(mine.probability.argmax(1), theirs.probability.argmax(1))
    torch.testing.assert_close(mine.scores * 3, theirs.scores)
    assert torch.equal(mine.uncertainty["entropy"], theirs.uncertainty["entropy"])
    assert scaled.task is task_named(TaskName.CLASSIFICATION)
    for give in scaled.gradients(nn.Identity()).values():
        torch.testing.assert_close(give(batch), mine.scores)


def test_truth_is_needed():
    batch = dataclasses.replace(batches(torch.zeros(2, 1), label=torch.zeros(2))[0], label=None)
    with pytest.raises(ValueError, match="classification needs a batch with labels"):
        fit_temperature(made(Classes), nn.Identity(), [batch])
