"""Losses against closed forms, written figures, quadrature and torch.distributions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats
from torch.distributions import Beta, kl_divergence

from trustsweep.data_pipelines.errors import UserError
from trustsweep.trainables.losses import (
    annealing,
    cross_entropy,
    kl_to_uniform,
    marginal_ace,
    misleading_evidence,
    soft_dice,
    split_by_truth,
)
from trustsweep.trainables.registry import RISKS

parameters = st.floats(min_value=1.0, max_value=200.0)


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize(
    ("risk", "figure"),
    [("type-2", 0.393043), ("cross-entropy", 0.459334), ("squared-error", 0.299)],
)
def test_written_figures_of_the_risks(risk: str, figure: float) -> None:
    # a = 2.7, b = 1.3, y = 1. The last is exact: 2[(1.3/4)² + 2.7·1.3/(16·5)].
    assert RISKS[risk](one(2.7), one(1.3)).item() == pytest.approx(figure, abs=1e-6)


def test_written_figure_of_the_divergence() -> None:
    assert kl_to_uniform(one(2.7), one(1.3)).item() == pytest.approx(0.256653, abs=1e-6)


@given(true=parameters, other=parameters)
def test_bayes_risks_are_expectations_under_the_beta(true: float, other: float) -> None:
    beta = stats.beta(true, other)
    p_mean, p_var = beta.mean(), beta.var()
    squared = 2 * ((1 - p_mean) ** 2 + p_var)  # both classes, y = 1
    assert RISKS["squared-error"](one(true), one(other)).item() == pytest.approx(squared, abs=1e-9)
    log_loss = -(special.digamma(true) - special.digamma(true + other))
    assert RISKS["cross-entropy"](one(true), one(other)).item() == pytest.approx(log_loss, abs=1e-9)


@pytest.mark.parametrize(("true", "other"), [(1.0, 1.0), (2.7, 1.3), (1.2, 9.0), (30.0, 4.0)])
def test_risks_by_quadrature(true: float, other: float) -> None:
    beta = stats.beta(true, other)
    log_loss, _ = integrate.quad(lambda p: -math.log(p) * beta.pdf(p), 0, 1)
    assert RISKS["cross-entropy"](one(true), one(other)).item() == pytest.approx(log_loss, abs=1e-6)
    # Type-II maximum likelihood: −ln of the marginal likelihood of the label.
    marginal, _ = integrate.quad(lambda p: p * beta.pdf(p), 0, 1)
    assert RISKS["type-2"](one(true), one(other)).item() == pytest.approx(-math.log(marginal))


@given(true=parameters, other=parameters, more=st.floats(min_value=0.1, max_value=50))
@pytest.mark.parametrize("risk", RISKS)
def test_risks_reward_true_and_punish_false_evidence(
    risk: str, true: float, other: float, more: float
) -> None:
    here = RISKS[risk](one(true), one(other)).item()
    assert here > 0
    assert RISKS[risk](one(true + more), one(other)).item() < here
    if risk != "squared-error":  # its variance term shrinks with any evidence
        assert RISKS[risk](one(true), one(other + more)).item() > here


@given(other=parameters)
def test_misleading_evidence_is_the_divergence_without_true_evidence(other: float) -> None:
    expected = kl_divergence(Beta(one(1.0), one(other)), Beta(one(1.0), one(1.0))).item()
    assert misleading_evidence(one(other)).item() == pytest.approx(expected, abs=1e-9)


@given(a=parameters, b=parameters)
def test_full_divergence_equals_torch_distributions(a: float, b: float) -> None:
    expected = kl_divergence(Beta(one(a), one(b)), Beta(one(1.0), one(1.0))).item()
    assert kl_to_uniform(one(a), one(b)).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [1e6, 1e12, 1e30])
@pytest.mark.parametrize("risk", RISKS)
def test_huge_evidence_is_finite_and_right_in_float32(risk: str, size: float) -> None:
    for true, other in ((size, 1.0), (1.0, size), (size, size)):
        x = torch.tensor([true], requires_grad=True)
        y = torch.tensor([other], requires_grad=True)
        value = RISKS[risk](x, y)
        value.sum().backward()
        exact = RISKS[risk](one(true), one(other)).item()
        assert value.item() == pytest.approx(exact, rel=1e-6, abs=1e-5)
        assert x.grad is not None
        assert y.grad is not None
        assert bool(torch.isfinite(x.grad) & torch.isfinite(y.grad))


@pytest.mark.parametrize("risk", ["type-2", "squared-error"])
def test_well_founded_certainty_costs_its_exact_little(risk: str) -> None:
    """float32 keeps every digit of a risk of 1e-6 and less: nothing cancels."""
    exact = RISKS[risk](one(1e6), one(1.0)).item()
    assert 0 < exact < 1e-5
    assert RISKS[risk](torch.tensor(1e6), torch.tensor(1.0)).item() == pytest.approx(
        exact, rel=1e-5
    )


@pytest.mark.parametrize("size", [1.0, 1.001, 1e6, 1e30])
def test_regulariser_in_float32(size: float) -> None:
    exact = math.log(size) + 1 / size - 1
    assert misleading_evidence(torch.tensor(size)).item() == pytest.approx(
        exact, rel=1e-5, abs=1e-7
    )
    full = kl_to_uniform(torch.tensor(2.0), torch.tensor(min(size, 1e6))).item()
    assert full == pytest.approx(
        -stats.beta(2.0, torch.tensor(min(size, 1e6)).item()).entropy(), rel=1e-5, abs=1e-6
    )


def test_no_evidence_is_no_divergence() -> None:
    assert misleading_evidence(torch.ones(3)).tolist() == [0, 0, 0]


def test_truth_decides_which_parameter_is_true() -> None:
    a, b = torch.tensor([3.0, 3.0]), torch.tensor([2.0, 2.0])
    true, other = split_by_truth(a, b, torch.tensor([1.0, 0.0]))
    assert true.tolist() == [3, 2]
    assert other.tolist() == [2, 3]


def test_annealing_is_linear_then_one() -> None:
    assert [annealing(e, 10) for e in (0, 2.5, 10, 40)] == [0, 0.25, 1, 1]
    assert annealing(0, 0) == 1


def test_dice_of_perfect_opposite_and_empty() -> None:
    mask = torch.zeros(4, 1, 8, 8)
    mask[:2, :, :4] = 1
    prediction = torch.stack([mask[0], 1 - mask[1], mask[2], torch.ones_like(mask[3])])
    perfect, opposite, both_empty, false_alarm = soft_dice(prediction, mask).tolist()
    assert perfect == 0
    assert both_empty == 0
    assert opposite == pytest.approx(1 - 1 / 65)
    assert false_alarm == pytest.approx(1 - 1 / 65)


def test_dice_of_a_sample_ignores_the_batch() -> None:
    torch.manual_seed(0)
    p, y = torch.rand(3, 1, 5, 6, 7), torch.rand(3, 1, 5, 6, 7).round()
    assert torch.equal(soft_dice(p, y)[1:2], soft_dice(p[1:2], y[1:2]))


def test_gradient_of_dice_on_an_empty_mask_lowers_the_prediction() -> None:
    p = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    soft_dice(p, torch.zeros(1, 1, 4, 4)).sum().backward()
    assert p.grad is not None
    assert bool((p.grad > 0).all())


def test_marginal_ace_is_the_mean_gap_over_filled_bins() -> None:
    p = torch.tensor([[0.02, 0.04, 0.51, 0.99, 1.0], [0.5, 0.5, 0.5, 0.5, 0.5]])
    y = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0]])
    # Bins of width 1/20: 0.02 and 0.04 share the first, 0.99 and 1 the last.
    first = (abs(0.03 - 0.5) + abs(0.51 - 1) + abs(0.995 - 1)) / 3
    torch.testing.assert_close(marginal_ace(p, y), torch.tensor([first, 0.1]))


def test_marginal_ace_of_calibrated_pixels_is_0_and_its_gradient_goes_there() -> None:
    torch.manual_seed(0)
    p = torch.rand(2, 20_000)
    assert bool((marginal_ace(p, (torch.rand_like(p) < p).float()) < 0.02).all())
    logit = torch.full((1, 100), 2.0, requires_grad=True)
    truth = (torch.arange(100) < 30).float()[None]
    marginal_ace(logit.sigmoid(), truth).sum().backward()
    # 0.88 sure of what is so in 0.3 of the pixels: less is better, for every pixel alike.
    assert bool((logit.grad > 0).all())
    assert float(logit.grad.std()) == pytest.approx(0, abs=1e-9)


def test_marginal_ace_works_on_volumes_and_at_the_ends() -> None:
    p, y = torch.tensor([0.0, 1.0]).expand(3, 1, 2, 4, 2), torch.ones(3, 1, 2, 4, 2)
    torch.testing.assert_close(marginal_ace(p, y), torch.full((3,), 0.5))


def test_cross_entropy_of_a_logit() -> None:
    logit, mask = torch.tensor([0.3, -2.0, 90.0]), torch.tensor([1.0, 0.0, 0.0])
    expected = [math.log1p(math.exp(-0.3)), math.log1p(math.exp(-2.0)), 90.0]
    assert cross_entropy(logit, mask).tolist() == pytest.approx(expected)


def test_unknown_risk_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'type-2'"):
        RISKS["type2"]
