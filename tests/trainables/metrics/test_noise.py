"""What an expected calibration error is worth at so many images, and referral of segmentations."""

import math

import numpy as np
import pytest
import torch

from tests.trainables.metrics.test_families import pair
from tests.trainables.metrics.test_states import labelled
from trustsweep.trainables.metrics.calibration import (
    CalibrationBins,
    ClassCalibration,
    RegionCalibration,
)
from trustsweep.trainables.metrics.referral import Referral
from trustsweep.trainables.metrics.selective import accepted, risk_coverage


def of_classes(p: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    state = ClassCalibration()
    doubt = torch.zeros(len(p))
    state.update(*labelled(torch.from_numpy(p), torch.from_numpy(truth), doubt))
    return state.compute()


def drawn(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """A label for each row of probabilities (n, K)."""
    return (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=p.shape[1] - 1)


def beta(seed: int, n: int, classes: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([0.7] * classes, size=n)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("n", [1, 20, 108, 2000])
def test_the_floor_is_what_a_calibrated_model_shows_on_average(n: int, classes: int) -> None:
    """Against 200 draws of the labels from the predicted probabilities."""
    rng, p = np.random.default_rng(n), beta(n, n, classes)
    found = [of_classes(p, drawn(rng, p)) for _ in range(200)]
    errors = np.array([f["ece"] for f in found])
    floor = found[0]["ece_floor"]
    assert {f["ece_floor"] for f in found} == {floor}
    standard_error = errors.std() / math.sqrt(len(errors))
    # Unequal confidences within a bin make the true mean a little smaller.
    assert floor == pytest.approx(errors.mean(), abs=4 * standard_error + 0.02 * floor)


def test_at_108_images_perfect_calibration_shows_an_error_of_a_fifteenth_or_so() -> None:
    p = np.random.default_rng(0).uniform(size=108)
    assert of_classes(np.stack([1 - p, p], axis=1), np.ones(108, int))["ece_floor"] == (
        pytest.approx(0.072, abs=0.02)
    )


def test_the_floor_of_one_bin_in_closed_form() -> None:
    """Two images at 0.9: both right (0.81), one (0.18) or none (0.01) make |S| 0.2, 0.8 or 1.8."""
    p = np.tile([0.1, 0.9], (2, 1))
    expected = (0.81 * 0.2 + 0.18 * 0.8 + 0.01 * 1.8) / 2
    assert of_classes(p, np.ones(2, int))["ece_floor"] == pytest.approx(expected)


def test_a_sure_model_has_no_floor() -> None:
    found = of_classes(np.tile([0.0, 1.0], (5, 1)), np.array([1, 1, 1, 1, 0]))
    assert (found["ece_floor"], found["ece"]) == pytest.approx((0, 0.2))


def test_debiasing_takes_bias_away_and_leaves_what_is_there() -> None:
    rng, p = np.random.default_rng(5), beta(5, 150)
    calibrated = [of_classes(p, drawn(rng, p)) for _ in range(300)]
    ece, less, floor = (
        np.mean([f[name] for f in calibrated]) for name in ("ece", "ece_debiased", "ece_floor")
    )
    assert less < 0.7 * ece
    assert less == pytest.approx(2 * (1 - math.sqrt(0.5)) * floor, rel=0.15)
    # Labels as if all confidences were 0.5: the error is known, and the noise small beside it.
    fair = np.full_like(p, 0.5)
    wrong = [of_classes(p, drawn(rng, fair)) for _ in range(300)]
    truth = float(np.mean(p.max(axis=1) - 0.5))
    plain, debiased = (np.mean([f[n] for f in wrong]) for n in ("ece", "ece_debiased"))
    assert abs(debiased - truth) < abs(plain - truth)
    assert debiased == pytest.approx(truth, abs=0.005)


def blobs(seed: int, images: int, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose pixels share one draw: every pixel of an image is right, or none is."""
    g = torch.Generator().manual_seed(seed)
    sure = 0.6 + 0.35 * torch.rand(images, 1, 1, generator=g, dtype=torch.float64)
    right = torch.rand(images, 1, 1, generator=g) < sure + shift
    return sure.expand(images, 8, 8), right.double().expand(images, 8, 8)


@pytest.mark.parametrize(
    ("cls", "name"), [(CalibrationBins, "ece"), (RegionCalibration, "ece_region")]
)
def test_the_floor_of_pixels_counts_images(cls: type[CalibrationBins], name: str) -> None:
    """Pixels that are right or wrong together: the floor is that of images, 64 times fewer."""
    found = []
    for seed in range(200):
        state = cls()
        state.update(*pair(*blobs(seed, 60)))
        found.append(state.compute())
    ece, floor = (np.mean([f[key] for f in found]) for key in (name, f"{name}_floor"))
    assert floor == pytest.approx(ece, rel=0.1)
    assert np.mean([f[f"{name}_debiased"] for f in found]) < 0.7 * ece


def test_debiased_pixels_keep_a_true_error() -> None:
    state = CalibrationBins()
    state.update(*pair(*blobs(0, 4000, shift=-0.3)))
    found = state.compute()
    assert found["ece_debiased"] == pytest.approx(0.3, abs=0.02)
    assert found["ece_floor"] < 0.03


# Referral


def segmented(seed: int, images: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Squares found in part; the more is missed, the more uncertain is the map."""
    g = torch.Generator().manual_seed(seed)
    y = torch.zeros(images, 8, 8)
    y[: images - 5, 2:6, 2:6] = 1
    missed = torch.randint(0, 5, (images,), generator=g)
    p = y.clone()
    for i, rows in enumerate(missed.tolist()):
        p[i, 2 : 2 + rows] = 0
    doubt = (missed / 8 + 0.2 * torch.rand(images, generator=g)).reshape(-1, 1, 1)
    return p, y, doubt.expand_as(y)


def referral(p: torch.Tensor, y: torch.Tensor, doubt: torch.Tensor) -> Referral:
    state = Referral()
    state.update(*pair(p, y, u=doubt))
    return state


def test_the_area_is_the_mean_of_the_curve() -> None:
    state = referral(*segmented(0))
    coverage, risk = risk_coverage(state.answers)
    found = state.compute()
    assert found["aurc"] == pytest.approx(risk.mean())
    assert risk[-1] == pytest.approx(state.answers.error.mean())
    assert coverage[-1] == 1
    best = risk_coverage(state.answers)[1].mean() - found["e_aurc"]
    errors = np.sort(state.answers.error)
    assert best == pytest.approx((np.cumsum(errors) / np.arange(1, len(errors) + 1)).mean())


def test_an_order_by_the_error_itself_is_best_and_one_without_meaning_is_the_mean() -> None:
    p, y, doubt = segmented(1)
    both, total = (p * y).sum(dim=(1, 2)), p.sum(dim=(1, 2)) + y.sum(dim=(1, 2))
    error = 1 - torch.where(total == 0, 1.0, 2 * both / total)
    best = referral(p, y, error.reshape(-1, 1, 1).expand_as(y)).compute()
    assert best["e_aurc"] == pytest.approx(0, abs=1e-7)
    flat = referral(p, y, torch.zeros_like(y)).compute()
    assert flat["aurc"] == pytest.approx(float(error.mean()))
    assert best["aurc"] < referral(p, y, doubt).compute()["aurc"] < flat["aurc"]


def test_referring_the_most_uncertain_half_leaves_better_segmentations() -> None:
    answers = referral(*segmented(2)).answers
    kept = accepted(answers, float(np.median(answers.uncertainty)))
    assert kept["coverage"] == pytest.approx(0.5, abs=0.05)
    assert kept["dice"] > answers.quality()["dice"] + 0.05
    assert kept.keys() == {"coverage", "dice", "dice_lesion"}
    none = accepted(answers, -1.0)
    assert none["coverage"] == 0
    assert math.isnan(none["dice"])
