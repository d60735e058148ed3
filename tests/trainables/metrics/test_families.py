"""Each family of metrics against MONAI, scikit-learn, SciPy and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import CalibrationErrorMetric, DiceMetric, MeanIoU
from scipy import ndimage, stats
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics import samples
from trustsweep.trainables.metrics.base import uncertainty_map
from trustsweep.trainables.metrics.calibration import CalibrationBins, RegionCalibration
from trustsweep.trainables.metrics.overlap import Overlap
from trustsweep.trainables.metrics.pixels import dilate
from trustsweep.trainables.metrics.scores import ProperScores
from trustsweep.trainables.metrics.shift import Shift
from trustsweep.trainables.metrics.sparsification import Sparsification, ause

Field = torch.Tensor


def pair(
    p: Field, y: Field, ids: list[str] | None = None, u: Field | None = None
) -> tuple[Prediction, Batch]:
    names = tuple(ids or [f"s{i}" for i in range(len(p))])
    batch = Batch(sample_id=names, image=torch.zeros_like(p).unsqueeze(1), mask=y.unsqueeze(1))
    return Prediction.from_probability(
        p.unsqueeze(1), {"u": p * (1 - p) if u is None else u}
    ), batch


def field(seed: int, images: int = 4, size: int = 24, lesion: float = 0.3) -> tuple[Field, Field]:
    g = torch.Generator().manual_seed(seed)
    y = (torch.rand(images, size, size, generator=g) < lesion).float()
    p = (0.6 * y + 0.6 * torch.rand(images, size, size, generator=g) - 0.1).clamp(0.001, 0.999)
    return p, y


# Overlap


def test_overlap_against_monai() -> None:
    p, y = field(0)
    y[1] = 0  # lesion absent, prediction present
    p[2] = 0.1  # lesion present, prediction absent
    y[3], p[3] = 0, 0.2  # both absent
    prediction, batch = pair(p, y)
    state = Overlap()
    state.update(prediction, batch)
    found = state.compute()
    guess = (prediction.probability > 0.5).float()
    for name, oracle in (
        ("dice", DiceMetric(reduction="mean", ignore_empty=False)),
        ("iou", MeanIoU(reduction="mean", ignore_empty=False)),
    ):
        oracle(guess, batch.mask)
        assert found[name] == pytest.approx(float(oracle.aggregate()), abs=1e-6)
    both = float((guess * batch.mask).sum())
    total = float(guess.sum() + batch.mask.sum())
    assert found["dice_micro"] == pytest.approx(2 * both / total)
    assert found["iou_micro"] == pytest.approx(both / (total - both))


def test_overlap_without_any_lesion() -> None:
    none = torch.zeros(2, 4, 4)
    state = Overlap()
    state.update(*pair(none, none))
    found = state.compute()
    assert math.isnan(found.pop("dice_lesion"))
    assert (found.pop("false_alarms"), found.pop("false_alarm_volume")) == (0, 0)
    assert set(found.values()) == {1.0}
    state = Overlap()
    state.update(*pair(none + 1, none))
    found = state.compute()
    assert math.isnan(found.pop("dice_lesion"))
    assert (found.pop("false_alarms"), found.pop("false_alarm_volume")) == (1, 1)
    assert set(found.values()) == {0.0}


def test_lesions_and_images_without_one_are_told_apart() -> None:
    """An image with a lesion that is half found, one that is missed, two without of which one has
    a false alarm of 3 of its 16 pixels."""
    y, p = torch.zeros(4, 4, 4), torch.zeros(4, 4, 4)
    y[0, 0, :2] = p[0, 0, 0] = y[1, 2, 2] = p[3, 0, :3] = 1
    state = Overlap()
    state.update(*pair(p, y))
    found = state.compute()
    assert found["dice_lesion"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["dice"] == pytest.approx((2 / 3 + 0 + 1 + 0) / 4)
    assert found["false_alarms"] == 0.5
    assert found["false_alarm_volume"] == pytest.approx(3 / 16 / 2)
    assert found["empty_share"] == 0.5
    state = Overlap()
    state.update(*pair(p[:2], y[:2]))
    found = state.compute()
    assert all(math.isnan(found[name]) for name in ("false_alarms", "false_alarm_volume"))


def test_a_tie_is_background() -> None:
    half = torch.full((1, 3, 3), 0.5)
    state = Overlap()
    state.update(*pair(half, torch.ones(1, 3, 3)))
    assert state.compute()["dice"] == 0


# Calibration


def monai_calibration(confidence: Field, correct: Field, reduction: str) -> float:
    """MONAI bins each class against its own rate; on confidence and correctness that is top-label.

    It sums in float32, which costs some 2e-6 here.
    """
    metric = CalibrationErrorMetric(
        num_bins=15, calibration_reduction=reduction, metric_reduction="mean"
    )
    metric(confidence.reshape(1, 1, -1), correct.reshape(1, 1, -1))
    return float(metric.aggregate())


@pytest.mark.parametrize("lesion", [0.05, 0.3])
def test_calibration_against_monai(lesion: float) -> None:
    p, y = field(1, images=8, lesion=lesion)
    confidence = torch.maximum(p, 1 - p)
    correct = ((p > 0.5) == (y > 0.5)).float()
    state = CalibrationBins()
    state.update(*pair(p, y))
    found = state.compute()
    assert found["ece"] == pytest.approx(
        monai_calibration(confidence, correct, "expected"), abs=1e-5
    )
    assert found["mce"] == pytest.approx(
        monai_calibration(confidence, correct, "maximum"), abs=1e-5
    )

    region = RegionCalibration()
    region.update(*pair(p, y))
    union = ((p > 0.5) | (y > 0.5)).numpy()
    # 24 pixels: radius 1, a 3 x 3 box.
    near = torch.from_numpy(
        np.stack([ndimage.binary_dilation(u, np.ones((3, 3), dtype=bool)) for u in union])
    )
    found = region.compute()
    expected = monai_calibration(confidence[near], correct[near], "expected")
    assert found["ece_region"] == pytest.approx(expected, abs=1e-5)


def test_known_calibration() -> None:
    # 10 pixels sure at 0.9 of which 7 are right, 10 at 0.7 of which 7 are right.
    p = torch.tensor([[0.9] * 10 + [0.3] * 10], dtype=torch.float64)
    y = torch.tensor([[1.0] * 7 + [0.0] * 3 + [0.0] * 7 + [1.0] * 3], dtype=torch.float64)
    state = CalibrationBins()
    state.update(*pair(p, y))
    found = state.compute()
    assert (found["ece"], found["mce"]) == pytest.approx((0.1, 0.2))
    curve = state.curve()
    filled = [i for i, n in enumerate(curve["count"]) if n]
    assert filled == [10, 13]
    assert [curve["accuracy"][i] for i in filled] == [0.7, 0.7]
    assert [curve["confidence"][i] for i in filled] == pytest.approx([0.7, 0.9])
    assert curve["accuracy"][0] is None
    assert {len(v) for v in curve.values()} == {15}


def test_edges_belong_to_the_bin_below_and_one_to_the_last() -> None:
    p = torch.tensor([[1.0, 0.0, 0.6, 0.5]], dtype=torch.float64)
    state = CalibrationBins()
    state.update(*pair(p, torch.ones_like(p)))
    assert [i for i, n in enumerate(state.curve()["count"]) if n] == [7, 8, 14]


def test_a_probability_that_rounding_carried_past_one_is_sure() -> None:
    p = torch.tensor([[1 + 2e-7, -1e-7]], dtype=torch.float64)
    state = CalibrationBins()
    state.update(*pair(p, torch.tensor([[1.0, 0.0]], dtype=torch.float64)))
    assert state.curve()["count"][14] == 2
    assert state.compute()["ece"] < 1e-6


def test_far_background_does_not_flatter_the_region() -> None:
    p, y = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64)
    y[0, 30:34, 30:34] = 1
    p[0, 28:32, 28:32] = 0.99
    whole, region = CalibrationBins(), RegionCalibration()
    whole.update(*pair(p, y))
    region.update(*pair(p, y))
    # Radius 2: the 4 x 4 squares meet in 2 x 2 pixels, and grow to 8 x 8 meeting in 6 x 6.
    assert sum(region.curve()["count"]) == 2 * 64 - 36
    assert region.compute()["ece_region"] > 10 * whole.compute()["ece"]


def test_region_without_lesion_or_prediction_is_no_number() -> None:
    none = torch.zeros(2, 16, 16)
    state = RegionCalibration()
    state.update(*pair(none, none))
    assert all(math.isnan(v) for v in state.compute().values())


def test_what_is_no_number_counts_however_far_from_the_lesion() -> None:
    p, y = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64)
    y[0, :4, :4] = 1
    p[0, 60, 60] = math.nan
    state = RegionCalibration()
    state.update(*pair(p, y))
    assert all(math.isnan(v) for v in state.compute().values())


@pytest.mark.parametrize(("shape", "radius"), [((20, 15), 2), ((9, 8, 7), 1), ((30,), 3)])
def test_dilation_against_scipy(shape: tuple[int, ...], radius: int) -> None:
    region = torch.rand(3, *shape) < 0.02
    box = np.ones([2 * radius + 1] * len(shape), dtype=bool)
    for before, after in zip(region, dilate(region, radius), strict=True):
        assert np.array_equal(after.numpy(), ndimage.binary_dilation(before.numpy(), box))


# Proper scores


def test_scores_against_sklearn() -> None:
    p, y = field(2)
    state = ProperScores()
    state.update(*pair(p.double(), y.double()))
    truth, given_p = y.flatten().numpy(), p.double().flatten().numpy()
    assert state.compute()["nll"] == pytest.approx(log_loss(truth, given_p), abs=1e-10)
    assert state.compute()["brier"] == pytest.approx(brier_score_loss(truth, given_p), abs=1e-10)


def test_the_worst_prediction_costs_a_finite_likelihood() -> None:
    y = torch.ones(1, 4, 4)
    state = ProperScores()
    state.update(*pair(0 * y, y))
    assert state.compute() == pytest.approx({"nll": -math.log(1e-7), "brier": 1})


# Sparsification


def ause_by_definition(error: np.ndarray, uncertainty: np.ndarray) -> float:
    """Mean over k of the mean error of the n − k least uncertain, less that of the smallest."""
    n = len(error)
    by_uncertainty, by_error = error[np.argsort(uncertainty)], np.sort(error)
    gaps = [by_uncertainty[: n - k].mean() - by_error[: n - k].mean() for k in range(n)]
    return float(np.mean(gaps) / error.mean())


def test_ause_against_its_definition() -> None:
    g = np.random.default_rng(0)
    error, uncertainty = g.random((4, 300)), g.random((4, 300))
    found = ause(torch.from_numpy(error), torch.from_numpy(uncertainty))
    expected = [ause_by_definition(e, u) for e, u in zip(error, uncertainty, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_ause_closed_forms() -> None:
    n = 40_000
    error = torch.rand(2, n, dtype=torch.float64)
    assert float(ause(error, error).max()) == pytest.approx(0, abs=1e-12)
    random = torch.rand(2, n)
    assert ause(error, random).tolist() == pytest.approx([0.5, 0.5], abs=0.03)
    assert ause(error, -error).tolist() == pytest.approx([1, 1], abs=0.01)
    assert ause(error, torch.ones(2, n)).tolist() == pytest.approx([0.5, 0.5], abs=0.01)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
def test_ause_of_zero_one_errors_is_the_excess_risk_coverage_area(rate: float) -> None:
    n = 20_000
    error = torch.zeros(1, n, dtype=torch.float64)
    error[0, : int(rate * n)] = 1
    # Constant uncertainty stands for every order alike: AURC = r, AURC* = r + (1 − r) ln(1 − r).
    excess = -(1 - rate) * math.log(1 - rate)
    found = float(ause(error, torch.zeros(1, n)))
    assert found * rate == pytest.approx(excess, abs=1e-3)


@given(st.integers(0, 10_000))
def test_ause_knows_only_the_order(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    error = torch.rand(2, 60, dtype=torch.float64, generator=g)
    uncertainty = torch.randint(0, 12, (2, 60), generator=g).double()
    reference = ause(error, uncertainty)
    assert torch.allclose(ause(error, torch.exp(uncertainty / 3) - 5), reference, atol=1e-12)
    shuffled = torch.randperm(60, generator=g)
    again = ause(error[:, shuffled], uncertainty[:, shuffled])
    assert torch.allclose(again, reference, atol=1e-12)


def test_ties_are_the_mean_over_their_orders() -> None:
    error = torch.tensor([[0.9, 0.1, 0.5, 0.3]], dtype=torch.float64)
    tied = torch.tensor([[1.0, 1.0, 1.0, 2.0]])
    orders = [torch.tensor([[*order, 9.0]]) for order in itertools.permutations((0.0, 1.0, 2.0))]
    mean = np.mean([float(ause(error, o)) for o in orders])
    assert float(ause(error, tied)) == pytest.approx(mean, abs=1e-12)


def test_no_error_leaves_nothing_to_sort() -> None:
    assert ause(torch.zeros(1, 9, dtype=torch.float64), torch.rand(1, 9)).tolist() == [0]


def test_an_uncertainty_that_is_no_number_is_never_dropped() -> None:
    p, y = field(3)
    doubt = torch.rand_like(p)
    doubt[0, 0, 0] = math.nan
    state = Sparsification()
    state.update(*pair(p, y, u=doubt))
    assert math.isnan(state.compute()["ause"])


def test_sparsification_judges_the_map_it_is_told() -> None:
    p, y = field(4)
    prediction, batch = pair(p, y)
    wise = (y - p).abs()
    both = Prediction.from_probability(prediction.probability, {"first": -wise, "second": wise})
    values = {}
    for name in (None, "first", "second"):
        state = Sparsification(name)
        state.update(both, batch)
        values[name] = state.compute()["ause"]
    assert values["second"] == pytest.approx(0, abs=1e-12)
    assert values[None] == values["first"] > 0.5
    with pytest.raises(UserError, match="no uncertainty map 'third'; it has first, second"):
        uncertainty_map(both, "third")


# Shift under attack


def shifted(
    images: int, seed: int, ids: list[str] | None = None
) -> tuple[Prediction, Prediction, Batch]:
    p, y = field(seed, images=images, size=12)
    g = torch.Generator().manual_seed(seed + 1)
    strength = torch.rand(images, 1, 1, generator=g)
    noise = torch.rand(p.shape, generator=g)
    attacked = (1 - strength) * p + strength * noise
    clean, batch = pair(p, y, ids, torch.rand(p.shape, generator=g))
    worse, _ = pair(attacked, y, ids, torch.rand(p.shape, generator=g) + 0.1 * strength)
    return clean, worse, batch


def image_dice(prediction: Prediction, batch: Batch) -> np.ndarray:
    metric = DiceMetric(reduction="none", ignore_empty=False)
    return metric((prediction.probability > 0.5).float(), batch.mask)[:, 0].numpy()


def test_shift_against_scipy_and_sklearn() -> None:
    clean, worse, batch = shifted(40, 5)
    state = Shift()
    state.update(clean, worse, batch)
    before, after = (p.uncertainty["u"].mean(dim=(1, 2)).numpy() for p in (clean, worse))
    change = image_dice(worse, batch) - image_dice(clean, batch)
    found = state.compute()
    assert found["spearman"] == pytest.approx(stats.spearmanr(after - before, change).statistic)
    truth = np.repeat([0, 1], 40)
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, np.concatenate([before, after])))


def test_uncertainty_that_rises_where_dice_falls() -> None:
    y = torch.zeros(5, 8, 8)
    y[:, :4] = 1
    clean, batch = pair(y, y, u=torch.zeros_like(y))
    attacked, doubt = y.clone(), torch.zeros_like(y)
    for i in range(5):
        attacked[i, :i] = 0
        doubt[i] = 0.1 + i
    worse, _ = pair(attacked, y, u=doubt)
    state = Shift()
    state.update(clean, worse, batch)
    assert state.compute() == pytest.approx({"spearman": -1, "auroc": 1})


def test_shift_that_is_the_same_for_all_images() -> None:
    clean, _, batch = shifted(6, 7)
    state = Shift()
    state.update(clean, clean, batch)
    assert state.compute() == {"spearman": 0.0, "auroc": 0.5}
    assert all(math.isnan(v) for v in Shift().compute().values())


def test_shift_never_drops_what_is_no_number() -> None:
    clean, worse, batch = shifted(6, 8)
    worse.probability[2, 0, 0, 0] = math.nan
    worse.uncertainty["u"][2, 0, 0] = math.nan
    state = Shift()
    state.update(clean, worse, batch)
    assert all(math.isnan(v) for v in state.compute().values())


@pytest.mark.parametrize("capacity", [1000, 11])
def test_shift_is_the_same_in_any_order_and_split(
    monkeypatch: pytest.MonkeyPatch, capacity: int
) -> None:
    monkeypatch.setattr(samples, "CAPACITY", capacity)
    batches = [shifted(8, s, [f"patient{s}-{i}" for i in range(8)]) for s in range(4)]
    one = Shift()
    for item in batches:
        one.update(*item)
    assert len(one.rows) == min(capacity, 32)
    workers = [Shift(), Shift()]
    for index in (3, 1, 0, 2):
        workers[index % 2].update(*batches[index])
    workers[1].merge(workers[0])
    assert workers[1].compute() == one.compute()
    assert np.array_equal(workers[1].rows, one.rows)
    back = Shift.from_state_dict(one.state_dict())
    assert back.compute() == one.compute()
