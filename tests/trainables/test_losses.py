"""Losses against closed forms, written figures, quadrature and torch.distributions."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.losses import DiceLoss
from scipy import integrate, special, stats
from torch.distributions import Beta, Dirichlet, kl_divergence

from trustsweep.data_pipelines.errors import UserError
from trustsweep.trainables.losses import (
    annealing,
    class_weight,
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
    assert RISKS[risk](torch.tensor(1e6), torch.tensor([1.0])).item() == pytest.approx(
        exact, rel=1e-5
    )


@pytest.mark.parametrize("size", [1.0, 1.001, 1e6, 1e30])
def test_regulariser_in_float32(size: float) -> None:
    exact = math.log(size) + 1 / size - 1
    assert misleading_evidence(torch.tensor([size])).item() == pytest.approx(
        exact, rel=1e-5, abs=1e-7
    )
    full = kl_to_uniform(torch.tensor(2.0), torch.tensor(min(size, 1e6))).item()
    assert full == pytest.approx(
        -stats.beta(2.0, torch.tensor(min(size, 1e6)).item()).entropy(), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("others", [1, 2, 5])
def test_no_evidence_is_no_divergence(others: int) -> None:
    assert misleading_evidence(torch.ones(others, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_truth_decides_which_parameter_is_true() -> None:
    alpha = torch.tensor([[2.0, 3.0, 4.0], [5.0, 6.0, 7.0], [8.0, 9.0, 10.0]])
    true, others = split_by_truth(alpha, torch.tensor([1, 0, 2]))
    assert true.tolist() == [5, 3, 10]
    assert others.tolist() == [[2, 6, 4], [8, 9, 7]]


evidences = st.lists(parameters, min_size=2, max_size=5)


@given(values=evidences)
def test_bayes_risks_are_expectations_under_the_dirichlet(values: list[float]) -> None:
    """In closed form from its moments, of a truth that is the first class."""
    alpha = np.array(values)
    law, total = stats.dirichlet(alpha), alpha.sum()
    true, others = torch.from_numpy(alpha[:1]), torch.from_numpy(alpha[1:]).unsqueeze(1)
    target = np.eye(len(alpha))[0]
    squared = ((target - law.mean()) ** 2).sum() + np.asarray(law.var()).sum()
    assert RISKS["squared-error"](true, others).item() == pytest.approx(squared, abs=1e-9)
    log_loss = special.digamma(total) - special.digamma(alpha[0])
    assert RISKS["cross-entropy"](true, others).item() == pytest.approx(log_loss, abs=1e-9)
    assert RISKS["type-2"](true, others).item() == pytest.approx(-math.log(law.mean()[0]), abs=1e-9)


@given(values=evidences)
def test_misleading_evidence_of_several_classes_is_the_divergence(values: list[float]) -> None:
    rest = torch.tensor(values, dtype=torch.float64)
    alpha = torch.cat([torch.ones(1, dtype=torch.float64), rest])
    expected = kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones_like(alpha))).item()
    assert misleading_evidence(rest.unsqueeze(1)).item() == pytest.approx(expected, abs=1e-9)
    single = misleading_evidence(rest.float().unsqueeze(1)).item()
    assert single == pytest.approx(expected, rel=1e-5, abs=2e-5)


@given(other=parameters)
@pytest.mark.parametrize("risk", RISKS)
def test_two_classes_are_a_beta_exactly(risk: str, other: float) -> None:
    """A third class with next to no weight would be seen in the last digits: so compare the form
    for K classes at K = 2 with the one written for a Beta."""
    a, b = one(other / 3 + 1), one(other)
    written = {
        "type-2": torch.log1p(b / a),
        "cross-entropy": torch.digamma(a + b) - torch.digamma(a),
        "squared-error": 2 * ((b / (a + b)) ** 2 + b / (a + b) * (a / (a + b)) / (a + b + 1)),
    }
    assert torch.equal(RISKS[risk](a, b.unsqueeze(0)), written[risk])
    beta = kl_divergence(Beta(one(1.0), b), Beta(one(1.0), one(1.0)))
    dirichlet = kl_divergence(
        Dirichlet(torch.cat([one(1.0), b])), Dirichlet(torch.ones(2, dtype=torch.float64))
    )
    assert misleading_evidence(b.unsqueeze(0)).item() == pytest.approx(beta.item(), abs=1e-9)
    assert dirichlet.item() == pytest.approx(beta.item(), abs=1e-9)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12, 1e30])
def test_huge_misleading_evidence_is_finite_and_right_in_float32(size: float) -> None:
    others = torch.tensor([[size], [size / 3], [1.0]], requires_grad=True)
    value = misleading_evidence(others)
    value.sum().backward()
    exact = _divergence([size, size / 3, 1.0])
    assert value.item() == pytest.approx(exact, rel=1e-5)
    assert others.grad is not None
    assert bool(torch.isfinite(others.grad).all())


def _divergence(others: list[float]) -> float:
    """KL(Dir(1, others) ‖ Dir(1)) with as many digits as it takes."""
    with mpmath.workdps(60):
        alpha = [mpmath.mpf(1), *map(mpmath.mpf, others)]
        total = sum(alpha)
        spread = sum((a - 1) * (mpmath.psi(0, a) - mpmath.psi(0, total)) for a in alpha)
        logs = sum(map(mpmath.loggamma, alpha))
        return float(mpmath.loggamma(total) - mpmath.loggamma(len(alpha)) - logs + spread)


def test_weights_are_those_of_the_true_class() -> None:
    label = torch.tensor([[0, 2], [1, 1]])
    weights = torch.tensor([0.5, 3.0, 7.0])
    assert class_weight(weights, label, exclusive=True).tolist() == [[0.5, 7], [3, 3]]
    pairs = torch.tensor([[0.5, 3.0], [1.0, 9.0]])
    regions = torch.tensor([[[0, 1], [1, 0]]])
    assert class_weight(pairs, regions, exclusive=False).tolist() == [[[0.5, 3], [9, 1]]]
    assert class_weight(None, label, exclusive=True) == 1


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


def test_dice_of_several_foregrounds_is_their_mean() -> None:
    torch.manual_seed(0)
    p, y = torch.rand(3, 4, 6, 7), torch.rand(3, 4, 6, 7).round()
    alone = torch.stack([soft_dice(p[:, k : k + 1], y[:, k : k + 1]) for k in range(4)])
    torch.testing.assert_close(soft_dice(p, y), alone.mean(0))
    # With one pixel added to both sides, MONAI's loss.
    monai = DiceLoss(smooth_nr=1, smooth_dr=1, reduction="none")(p, y).flatten(1).mean(1)
    torch.testing.assert_close(soft_dice(p, y), monai)


def test_gradient_of_dice_on_an_empty_mask_lowers_the_prediction() -> None:
    p = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    soft_dice(p, torch.zeros(1, 1, 4, 4)).sum().backward()
    assert p.grad is not None
    assert bool((p.grad > 0).all())


def test_marginal_ace_is_the_mean_gap_over_filled_bins() -> None:
    p = torch.tensor([[[0.02, 0.04, 0.51, 0.99, 1.0]], [[0.5, 0.5, 0.5, 0.5, 0.5]]])
    y = torch.tensor([[[0.0, 1.0, 1.0, 1.0, 1.0]], [[1.0, 0.0, 1.0, 0.0, 1.0]]])
    # Bins of width 1/20: 0.02 and 0.04 share the first, 0.99 and 1 the last.
    first = (abs(0.03 - 0.5) + abs(0.51 - 1) + abs(0.995 - 1)) / 3
    torch.testing.assert_close(marginal_ace(p, y), torch.tensor([first, 0.1]))
    # The mean over classes, of which a second that mirrors the first changes nothing.
    both = marginal_ace(torch.cat([1 - p, p], 1), torch.cat([1 - y, y], 1))
    torch.testing.assert_close(both, torch.tensor([first, 0.1]))
    other = marginal_ace(torch.cat([p, torch.ones_like(p)], 1), torch.cat([y, y], 1))
    torch.testing.assert_close(other, torch.tensor([(first + 0.2) / 2, (0.1 + 0.4) / 2]))


def test_marginal_ace_of_calibrated_pixels_is_0_and_its_gradient_goes_there() -> None:
    torch.manual_seed(0)
    p = torch.rand(2, 1, 20_000)
    assert bool((marginal_ace(p, (torch.rand_like(p) < p).float()) < 0.02).all())
    logit = torch.full((1, 1, 100), 2.0, requires_grad=True)
    truth = (torch.arange(100) < 30).float()[None, None]
    marginal_ace(logit.sigmoid(), truth).sum().backward()
    # 0.88 sure of what is so in 0.3 of the pixels: less is better, for every pixel alike.
    assert bool((logit.grad > 0).all())
    assert float(logit.grad.std()) == pytest.approx(0, abs=1e-9)


def test_marginal_ace_works_on_volumes_and_at_the_ends() -> None:
    p, y = torch.tensor([0.0, 1.0]).expand(3, 1, 2, 4, 2), torch.ones(3, 1, 2, 4, 2)
    torch.testing.assert_close(marginal_ace(p, y), torch.full((3,), 0.5))


def test_unknown_risk_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'type-2'"):
        RISKS["type2"]
