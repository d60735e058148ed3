"""Metrics of several classes and of regions: MONAI's, closed forms, and the single lesion's own."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, MeanIoU

from tests.trainables.metrics.test_states import TASKS, draw, pair, pixels, rows
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.trainables.metrics.calibration import CalibrationBins, RegionCalibration
from trustsweep.trainables.metrics.catalog import METRICS, state_classes
from trustsweep.trainables.metrics.overlap import Overlap, dice, image_dice
from trustsweep.trainables.metrics.pixels import Pixels
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.skill import (
    BEST_CONSTANT,
    EMPTY_MASK,
    FIXED_MASK,
    FULL_MASK,
    MEAN_MASK,
)
from trustsweep.trainables.metrics.trivial import TrivialClassMasks, TrivialMasks
from trustsweep.trainables.tasks import task_named

torch.set_num_threads(1)
PIXELS = [t for t in TASKS if t.endswith("segmentation")]
SEVERAL = [t for t in PIXELS if t is not TaskName.SEGMENTATION]
several_tasks = pytest.mark.parametrize("task", SEVERAL, ids=str)


def values(task: TaskName, *pairs: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for cls in state_classes(METRICS, task):
        state = cls()
        for prediction, batch in pairs:
            state.update(prediction, batch)
        found |= state.compute()
    return found


@several_tasks
def test_dice_and_iou_are_monais(task: TaskName) -> None:
    prediction, batch = draw(task, 3, images=8, classes=4)
    # One class is in one image alone.
    assert batch.mask is not None
    y = batch.mask.clone()
    if task is TaskName.MULTICLASS_SEGMENTATION:
        y[y == 3] = 0
        y[0, 0, :3] = 3
        one_hot = torch.nn.functional.one_hot(y[:, 0].long(), 4).movedim(-1, 1)
        predicted = torch.nn.functional.one_hot(prediction.scores.argmax(1), 4).movedim(-1, 1)
    else:
        y[2:, 3] = 0
        one_hot, predicted = y, (prediction.scores > 0)
    batch = dataclasses.replace(batch, mask=y)
    background = task is TaskName.REGION_SEGMENTATION
    oracle = DiceMetric(include_background=background, reduction="none", ignore_empty=False)
    each = oracle(predicted.float(), one_hot.float())
    mine = dice(Pixels.of(prediction, batch))
    torch.testing.assert_close(mine, each.double())
    state = Overlap()
    state.update(*rows((prediction, batch), [0, 1, 2]))
    state.update(*rows((prediction, batch), [3, 4, 5, 6, 7]))
    found = state.compute()
    assert found["dice"] == pytest.approx(float(each.mean()))
    # MONAI leaves out empty truths; its mean over images, then over classes, is ours.
    lesion = DiceMetric(include_background=background, reduction="mean_batch")
    lesion(predicted.float(), one_hot.float())
    assert found["dice_lesion"] == pytest.approx(float(lesion.aggregate().nanmean()))
    iou = MeanIoU(include_background=background, reduction="none", ignore_empty=False)
    assert found["iou"] == pytest.approx(float(iou(predicted.float(), one_hot.float()).mean()))


@pytest.mark.parametrize("seed", range(3))
def test_two_classes_and_one_region_are_a_single_lesion(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(5, 12, 10, generator=g, dtype=torch.float64)
    y = (torch.rand(5, 12, 10, generator=g) < 0.3).float()
    y[0], p[1, :6], y[2], p[2] = 0, 0.1, 0, 0.2
    doubt = torch.rand(5, 12, 10, generator=g)
    single = values(TaskName.SEGMENTATION, pair(p, y, doubt))
    mask = y.unsqueeze(1)
    both = pixels(torch.stack([1 - p, p], dim=1), mask, doubt, exclusive=True)
    for task, other in {
        TaskName.MULTICLASS_SEGMENTATION: both,
        TaskName.REGION_SEGMENTATION: pixels(p.unsqueeze(1), mask, doubt, exclusive=False),
    }.items():
        found = values(task, other)
        assert found.keys() == single.keys()
        for name, value in single.items():
            assert found[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


@several_tasks
def test_equal_classes_or_regions_have_the_metrics_of_one(task: TaskName) -> None:
    """Regions that are copies of each other; classes that are mirrored halves."""
    g = torch.Generator().manual_seed(1)
    p = torch.rand(4, 8, 6, generator=g)
    y = (torch.rand(4, 8, 6, generator=g) < 0.4).float()
    doubt = torch.rand(4, 8, 6, generator=g)
    if task is TaskName.REGION_SEGMENTATION:
        single = values(TaskName.SEGMENTATION, pair(p, y, doubt))
        twice = pixels(torch.stack([p, p], 1), torch.stack([y, y], 1), doubt, exclusive=False)
        assert values(task, twice) == pytest.approx(single, abs=1e-9, nan_ok=True)
        return
    single = values(TaskName.SEGMENTATION, pair(p, y, doubt))
    zero = torch.zeros_like(p)
    first = torch.stack([torch.cat([1 - p, 1 - p], 2), torch.cat([p, zero], 2)], 1)
    both = torch.cat([first, torch.cat([zero, p], 2).unsqueeze(1)], 1)
    mask = torch.cat([y, 2 * y], 2).unsqueeze(1)
    found = values(task, pixels(both, mask, torch.cat([doubt, doubt], 2), exclusive=True))
    for name in ("dice", "dice_lesion", "iou", "dice_micro", "iou_micro", "ece", "nll", "brier"):
        assert found[name] == pytest.approx(single[name], abs=1e-6), name


def test_classes_that_no_image_has_count_as_documented() -> None:
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, 0, :2] = 1
    label = mask[:, 0].long().clone()
    p = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    found = values(TaskName.MULTICLASS_SEGMENTATION, pixels(p, mask, label.float(), exclusive=True))
    # Of three foregrounds one occurs; two neither occur nor are predicted.
    assert found["dice"] == found["dice_lesion"] == found["dice_micro"] == 1
    assert found["false_alarms"] == 0
    label[1, 0, 0] = 2
    p = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    found = values(TaskName.MULTICLASS_SEGMENTATION, pixels(p, mask, label.float(), exclusive=True))
    assert found["dice_lesion"] == 1
    assert found["dice"] == pytest.approx((1 + 0.5) / 2)
    # Class 1 is absent from one image, the others from both.
    assert found["false_alarms"] == pytest.approx((0 + 0.5 + 0) / 3)
    assert found["empty_share"] == 0


def test_dice_of_an_image_is_over_what_it_has_or_is_given() -> None:
    mask = torch.zeros(3, 2, 2, 2)
    mask[0, 0] = 1
    mask[1, 0, 0] = 1
    p = torch.zeros(3, 2, 2, 2)
    p[0, 0], p[1, 0, 0], p[1, 1, 0, 0] = 1, 1, 1
    image = pixels(p, mask, torch.zeros(3, 2, 2), exclusive=False)
    assert image_dice(Pixels.of(*image)).tolist() == [1, 0.5, 1]


@several_tasks
def test_nan_reaches_every_metric(task: TaskName) -> None:
    prediction, batch = draw(task, 0)
    prediction.scores[2, 1, 3, 3] = math.nan
    found = values(task, (prediction, batch))
    assert all(math.isnan(value) for value in found.values()), found


def test_masks_of_other_shapes_and_classes_are_refused() -> None:
    prediction, batch = draw(TaskName.MULTICLASS_SEGMENTATION, 0)
    assert batch.mask is not None
    with pytest.raises(ValueError, match="of 3 classes predicted"):
        Pixels.of(prediction, dataclasses.replace(batch, mask=batch.mask + 2))
    with pytest.raises(ValueError, match="is expected"):
        Pixels.of(prediction, dataclasses.replace(batch, mask=batch.mask.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("task", PIXELS, ids=str)
def test_statistics_of_columns_are_the_states_metrics(task: TaskName) -> None:
    whole = draw(task, 5, images=9)
    prediction, batch = whole
    kind = task_named(task)
    doubt = prediction.uncertainty["bernoulli-variance"]
    columns = {k: v.numpy() for k, v in kind.columns(prediction, batch, doubt).items()}
    found, once = values(task, whole), np.ones((1, 9))
    for name, make in kind.statistics.items():
        assert make(columns)(once)[0] == pytest.approx(found[name], abs=1e-9, nan_ok=True), name
    # A resample is the metric of the images drawn, as often as they were.
    drawn = [0, 0, 3, 4, 4, 4, 8]
    again = values(task, rows(whole, drawn))
    weights = np.bincount(drawn, minlength=9)[None].astype(float)
    for name, make in kind.statistics.items():
        assert make(columns)(weights)[0] == pytest.approx(again[name], abs=1e-9, nan_ok=True), name


@several_tasks
def test_a_part_is_measured_like_a_single_lesion(task: TaskName) -> None:
    prediction, batch = draw(task, 6, images=7)
    kind, once = task_named(task), np.ones((1, 7))
    assert batch.mask is not None
    doubt = prediction.uncertainty["bernoulli-variance"]
    columns = {k: v.numpy() for k, v in kind.columns(prediction, batch, doubt).items()}
    parts = kind.parts(columns)
    assert parts.shape == (7, 2 if kind.exclusive else 3)
    for part in range(parts.shape[1]):
        column = part + kind.exclusive
        p = prediction.probability[:, column]
        y = (batch.mask[:, 0] == column) if kind.exclusive else batch.mask[:, part] > 0.5
        assert parts[:, part].tolist() == y.flatten(1).any(1).tolist()
        alone = kind.of_part(columns, part)
        single = pair(p, y.float(), doubt)
        calibrated: dict[str, float] = {}
        for cls in (CalibrationBins, RegionCalibration):
            state = cls()
            state.update(*single)
            calibrated |= state.compute()
        make = kind.statistics
        assert make["ece"](alone)(once)[0] == pytest.approx(calibrated["ece"], abs=1e-6)
        region = make["ece_region"](alone)(once)[0]
        assert region == pytest.approx(calibrated["ece_region"], abs=1e-6)
        overlap = dice(Pixels.of(prediction, batch))[:, part].numpy()
        assert make["dice"](alone)(once)[0] == pytest.approx(overlap.mean())


def trivial_of(task: TaskName, prior: Prior | None = None) -> TrivialMasks:
    kind = TrivialClassMasks if task is TaskName.MULTICLASS_SEGMENTATION else TrivialMasks
    return kind(prior, 2)


@several_tasks
def test_trivial_predictors_are_what_the_states_say_of_their_predictions(task: TaskName) -> None:
    exclusive = task is TaskName.MULTICLASS_SEGMENTATION
    train, test = (draw(task, seed, images=6)[1] for seed in (1, 2))
    assert train.mask is not None
    assert test.mask is not None
    test.mask[0] = 0
    # So that a fixed mask is worth something.
    for masks in (train.mask, test.mask):
        masks[1:, :, :4] = 1
        masks[1:, -1, 4:6] = 2 if exclusive else 1
    kind = type(trivial_of(task))
    prior = kind.learn([kind.truth(train)], 2)
    assert prior.mean is not None
    assert prior.fixed is not None
    state = kind(prior)
    state.update(test.select([0, 1]))
    later = kind(prior)
    later.update(test.select([2, 3, 4, 5]))
    state.merge(later)
    found = state.metrics()
    size = test.mask.shape[2:]
    zeros = torch.zeros(prior.mean.shape[0], *size, dtype=torch.float64)
    rates = TrivialRates.of(test.mask, exclusive)
    full = [zeros + 1]
    if exclusive:
        full = [torch.stack([zeros[0] + (k == place) for k in range(2)]) for place in range(2)]
    shown = {
        EMPTY_MASK: [zeros],
        FULL_MASK: full,
        MEAN_MASK: [torch.from_numpy(prior.mean).double()],
        FIXED_MASK: [torch.from_numpy(prior.fixed).double()],
        BEST_CONSTANT: [rates.view(-1, 1, 1) + zeros],
    }
    assert list(found) == [EMPTY_MASK, FULL_MASK, MEAN_MASK, FIXED_MASK, BEST_CONSTANT]
    for name, several in shown.items():
        options = []
        for p in several:
            p = torch.cat([1 - p.sum(0, keepdim=True), p]).clamp(0, 1) if exclusive else p
            whole = pixels(
                p.expand(6, *p.shape), test.mask, zeros[:1].expand(6, *size), exclusive=exclusive
            )
            options.append(values(task, whole))
        best = max(options, key=lambda row: row["dice_lesion"])
        for metric, value in found[name].items():
            assert value == pytest.approx(best[metric], abs=1e-9, nan_ok=True), (name, metric)
    assert found[FIXED_MASK]["dice_lesion"] > found[FULL_MASK]["dice_lesion"]


class TrivialRates:
    """How often each foreground is there."""

    @staticmethod
    def of(mask: torch.Tensor, exclusive: bool) -> torch.Tensor:
        if exclusive:
            return torch.stack([(mask == k).double().mean() for k in (1, 2)])
        return mask.double().mean(dim=(0, 2, 3))


def test_a_prior_has_room_for_classes_that_no_train_image_shows() -> None:
    masks = np.zeros((3, 1, 4, 4), dtype=np.uint8)
    masks[0, 0, 0] = 2
    prior = TrivialClassMasks.learn([masks[:1], masks[1:]], 3)
    assert prior.mean is not None
    assert prior.mean.shape == (3, 4, 4)
    # Without being told how many there are, as many as were seen; a later one makes room.
    late = TrivialClassMasks.learn([masks[1:], masks[:1]])
    assert late.mean is not None
    assert late.mean.shape == (2, 4, 4)
    np.testing.assert_allclose(late.mean, prior.mean[:2])
    with pytest.raises(ValueError, match="3 classes or regions, where there were 2"):
        TrivialClassMasks(late).add(masks + 1)


def test_fixed_masks_of_classes_exclude_each_other() -> None:
    """Where two classes are both worth calling, the commoner is called."""
    masks = np.zeros((10, 1, 2, 4), dtype=np.uint8)
    masks[:6, 0, 0], masks[6:, 0, 0], masks[:, 0, 1, 0] = 1, 2, 2
    prior = TrivialClassMasks.learn([masks], 2)
    assert prior.fixed is not None
    assert (prior.fixed.sum(axis=0) <= 1).all()
    assert prior.fixed[0, 0].all()
    assert prior.fixed[1, 1, 0]
