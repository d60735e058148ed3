"""Uncertainty maps against the written figures, numerical quadrature and their own bounds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats
from torch.distributions import Dirichlet

from trustsweep.trainables.registry import MAPS
from trustsweep.trainables.uncertainty import (
    RANGES,
    SCORES,
    bernoulli_maps,
    beta_maps,
    categorical_maps,
    dirichlet_maps,
    image_score,
    mean_maps,
)

parameters = st.floats(min_value=1.0, max_value=1e6)


def one(value: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([value], dtype=dtype)


def entropy(p: np.ndarray) -> np.ndarray:
    return special.entr(p) + special.entr(1 - p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_written_figures(dtype: torch.dtype) -> None:
    maps = {k: float(v) for k, v in beta_maps(one(2.7, dtype), one(1.3, dtype)).items()}
    assert maps["expected-entropy"] == pytest.approx(0.523276, abs=1e-6)
    assert maps["mutual-information"] == pytest.approx(0.107305, abs=1e-6)
    assert maps["beta-variance"] == pytest.approx(0.043875, abs=1e-6)
    assert maps["vacuity"] == pytest.approx(0.5)


def test_uniform_beta_is_the_most_uncertain() -> None:
    maps = {k: float(v) for k, v in beta_maps(one(1.0), one(1.0)).items()}
    assert maps["vacuity"] == 1
    assert maps["expected-entropy"] == pytest.approx(0.5)
    assert maps["mutual-information"] == pytest.approx(math.log(2) - 0.5)
    assert maps["beta-variance"] == pytest.approx(1 / 12)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.7, 1.3), (1.0, 30.0), (15.9, 16.1), (400, 2)])
def test_against_quadrature(a: float, b: float) -> None:
    maps = {k: float(v) for k, v in beta_maps(one(a), one(b)).items()}
    beta = stats.beta(a, b)
    mean = integrate.quad(lambda p: p * beta.pdf(p), 0, 1)[0]
    expected = integrate.quad(lambda p: entropy(p) * beta.pdf(p), 0, 1)[0]
    variance = integrate.quad(lambda p: (p - mean) ** 2 * beta.pdf(p), 0, 1)[0]
    assert maps["entropy"] == pytest.approx(float(entropy(np.array(mean))), abs=1e-7)
    assert maps["expected-entropy"] == pytest.approx(expected, abs=1e-7)
    assert maps["mutual-information"] == pytest.approx(
        float(entropy(np.array(mean))) - expected, abs=1e-7
    )
    assert maps["beta-variance"] == pytest.approx(variance, abs=1e-7)


@given(parameters, parameters)
def test_float32_agrees_with_float64_and_stays_in_range(a: float, b: float) -> None:
    single = beta_maps(one(a, torch.float32), one(b, torch.float32))
    exact = beta_maps(one(a, torch.float32).double(), one(b, torch.float32).double())
    for name, value in single.items():
        low, high = RANGES[name]
        assert low <= float(value) <= high + 1e-6
        assert float(value) == pytest.approx(float(exact[name]), rel=1e-3, abs=1e-7), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_information_and_expected_entropy_are_positive_at_any_evidence(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (10 ** (14 * torch.rand(2, 100_000, generator=g, dtype=torch.float64))).to(dtype)
    for one_sided in (b, torch.ones_like(b), a):
        maps = beta_maps(a, one_sided)
        assert (maps["mutual-information"] > 0).all()
        assert (maps["expected-entropy"] > 0).all()


@given(parameters, parameters)
def test_foreground_and_background_are_alike(a: float, b: float) -> None:
    there, back = beta_maps(one(a), one(b)), beta_maps(one(b), one(a))
    for name, value in there.items():
        assert float(value) == pytest.approx(float(back[name]), rel=1e-9), name


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(1.01, 100))
def test_more_evidence_of_the_same_kind_removes_uncertainty(a: float, b: float, k: float) -> None:
    less, more = beta_maps(one(a), one(b)), beta_maps(one(k * a), one(k * b))
    for name in ("vacuity", "beta-variance", "mutual-information"):
        assert float(more[name]) < float(less[name]), name
    assert float(more["entropy"]) == pytest.approx(float(less["entropy"]))


def test_certain_and_extreme_inputs_are_finite() -> None:
    p = torch.tensor([0.0, 1e-45, 0.5, 1 - 6e-8, 1.0])
    for name, value in bernoulli_maps(p).items():
        assert value.isfinite().all(), name
        assert value[[0, -1]].tolist() == [0, 0]
        assert float(value[2]) == pytest.approx(RANGES[name][1])
    a = torch.tensor([1.0, 1e6, 1e6, 1e12, 1e30])
    b = torch.tensor([1e6, 1.0, 1e6, 1e12, 1.0])
    for name, value in beta_maps(a, b).items():
        assert value.isfinite().all(), name
        assert (value >= 0).all(), name


@pytest.mark.parametrize("classes", [2, 5])
def test_maps_of_a_distribution_over_classes(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    p = (3 * torch.randn(200, classes, generator=generator, dtype=torch.float64)).softmax(1)
    maps = categorical_maps(p)
    np.testing.assert_allclose(maps["entropy"], stats.entropy(p.numpy(), axis=1), atol=1e-12)
    np.testing.assert_allclose(maps["least-confidence"], 1 - p.numpy().max(1), atol=1e-12)
    uniform = categorical_maps(torch.full((1, classes), 1 / classes))
    assert float(uniform["entropy"]) == pytest.approx(math.log(classes), rel=1e-6)


dirichlets = st.lists(st.floats(1.0, 60.0), min_size=2, max_size=6)


@given(values=dirichlets)
def test_maps_of_a_dirichlet_are_those_of_torch_and_scipy(values: list[float]) -> None:
    alpha = torch.tensor(values, dtype=torch.float64)
    maps = {k: float(v) for k, v in dirichlet_maps(alpha.view(1, -1, 1)).items()}
    law, total = Dirichlet(alpha), float(alpha.sum())
    assert maps["vacuity"] == pytest.approx(len(values) / total)
    assert maps["beta-variance"] == pytest.approx(float(law.variance.sum()) / 2, abs=1e-12)
    entropy = float(stats.entropy(law.mean.numpy()))
    assert maps["entropy"] == pytest.approx(entropy, abs=1e-10)
    # Each probability is a Beta, of which −p ln p has this mean.
    expected = -(law.mean * (torch.digamma(alpha + 1) - digamma(total + 1))).sum()
    assert maps["expected-entropy"] == pytest.approx(float(expected), abs=1e-9)
    assert maps["mutual-information"] == pytest.approx(entropy - float(expected), abs=1e-9)
    assert maps["mutual-information"] > 0


def digamma(x: float) -> float:
    return float(torch.digamma(torch.tensor(x, dtype=torch.float64)))


@pytest.mark.parametrize("values", [(1.0, 1.0, 1.0), (2.7, 1.3, 4.0), (40.0, 1.0, 2.0, 1.5)])
def test_expected_entropy_of_a_dirichlet_by_quadrature(values: tuple[float, ...]) -> None:
    total, expected = sum(values), 0.0
    for value in values:
        beta = stats.beta(value, total - value)
        expected += integrate.quad(lambda p, b=beta: -p * math.log(p) * b.pdf(p), 0, 1)[0]
    found = dirichlet_maps(torch.tensor(values, dtype=torch.float64).view(1, -1))
    assert float(found["expected-entropy"]) == pytest.approx(expected, abs=1e-6)


def test_a_beta_is_a_dirichlet_of_two() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = 1 + 20 * torch.rand(2, 3, 4, 5, generator=g, dtype=torch.float64)
    single, pair = beta_maps(a, b), dirichlet_maps(torch.stack([b, a], dim=1))
    for name in single:
        torch.testing.assert_close(single[name], pair[name])


def test_a_dirichlet_keeps_its_digits_and_forgets_the_order_of_classes() -> None:
    g = torch.Generator().manual_seed(0)
    alpha = 1 + torch.exp(8 * torch.rand(2, 4, 50, generator=g))
    single, exact = dirichlet_maps(alpha), dirichlet_maps(alpha.double())
    turned = dirichlet_maps(alpha[:, [2, 0, 3, 1]])
    for name, values in single.items():
        torch.testing.assert_close(values, exact[name].float(), rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(values, turned[name], rtol=1e-5, atol=1e-7)


def test_maps_of_regions_are_their_mean() -> None:
    p = torch.rand(2, 3, 4, 5)
    each = [bernoulli_maps(p[:, k]) for k in range(3)]
    for name, values in mean_maps(bernoulli_maps(p)).items():
        assert values.shape == (2, 4, 5)
        torch.testing.assert_close(values, torch.stack([one[name] for one in each]).mean(0))


def test_maps_of_classes_work_on_pixels() -> None:
    p = torch.randn(2, 4, 5, 6, dtype=torch.float64).softmax(1)
    flat = categorical_maps(p.movedim(1, -1).reshape(-1, 4))
    for name, values in categorical_maps(p).items():
        torch.testing.assert_close(values.flatten(), flat[name])
    variance = (p * (1 - p)).sum(1) / 2
    torch.testing.assert_close(categorical_maps(p)["bernoulli-variance"], variance)


def test_one_output_and_two_classes_are_alike() -> None:
    p = torch.linspace(0, 1, 101, dtype=torch.float64).unsqueeze(1)
    single, pair = categorical_maps(p), categorical_maps(torch.cat([1 - p, p], 1))
    for name in single:
        torch.testing.assert_close(single[name], pair[name])
    assert torch.equal(single["entropy"], bernoulli_maps(p[:, 0])["entropy"])


def test_doubt_of_a_sure_class_is_not_lost_to_rounding() -> None:
    logits = torch.tensor([[30.0, 0.0, 0.0], [40.0, 0.0, 0.0]])
    for values in categorical_maps(logits.softmax(1)).values():
        assert 0 < values[1] < values[0] < 1e-10


def test_half_precision_is_widened() -> None:
    half = torch.tensor([1.5], dtype=torch.bfloat16)
    assert all(v.dtype == torch.float32 for v in beta_maps(half, half).values())
    assert all(v.dtype == torch.float32 for v in bernoulli_maps(half - 1).values())


def test_every_map_has_a_meaning_and_a_range() -> None:
    offered = {*beta_maps(one(2), one(3)), *bernoulli_maps(one(0.2))}
    offered |= set(categorical_maps(torch.tensor([[0.2]])))
    assert offered == set(MAPS) == set(RANGES)


def test_scores_of_a_known_map() -> None:
    values = torch.arange(200, dtype=torch.float64).reshape(1, 10, 20).repeat(2, 1, 1)
    values[1] = 7.0
    assert image_score("mean", values).tolist() == [99.5, 7.0]
    assert image_score("max", values).tolist() == [199.0, 7.0]
    assert image_score("top", values).tolist() == [198.5, 7.0]
    assert image_score("share", values, 99.0).tolist() == [0.5, 0.0]


def test_share_without_threshold_uses_half_the_range() -> None:
    values = torch.tensor([[0.1, 0.12, 0.13, 0.25]])
    assert float(image_score("share", values, measure="bernoulli-variance")) == 0.5
    with pytest.raises(ValueError, match="threshold"):
        image_score("share", values)
    with pytest.raises(ValueError, match="known: mean"):
        image_score("median", values)


@pytest.mark.parametrize("name", SCORES)
def test_scores_treat_images_apart_in_any_dimension(name: str) -> None:
    values = torch.rand(4, 5, 6, 7)
    whole = image_score(name, values, 0.5)
    assert whole.shape == (4,)
    for i in range(4):
        assert torch.equal(whole[i : i + 1], image_score(name, values[i : i + 1].flatten(1), 0.5))
    assert image_score(name, torch.rand(4), 0.5).shape == (4,)
    values[2, 0, 0, 0] = math.nan
    assert image_score(name, values, 0.5).isnan().tolist() == [False, False, True, False]
