"""Discrete-time survival in closed form: hazards, likelihood with censoring, risk, and attacks."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, FollowUp, Manifest, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.attacks import adversary
from trustsweep.trainables.attacks.losses import survival_harm, survival_risk
from trustsweep.trainables.contract import Method, Prediction, Progress
from trustsweep.trainables.losses import known_cross_entropy
from trustsweep.trainables.metrics.survival import FollowedUp, SurvivalMetrics
from trustsweep.trainables.registry import METHODS
from trustsweep.trainables.survival import (
    dies_early,
    hazard_labels,
    log_likelihood,
    log_odds,
    log_outcomes,
    log_survival,
    risk,
)
from trustsweep.trainables.tasks import OutcomeTask, task_named

torch.set_num_threads(1)
TASK = task_named(TaskName.SURVIVAL)
NAN = math.nan
scores_of_four = st.lists(st.floats(-30, 30), min_size=4, max_size=4)


def followed(time: list[float], event: list[float], interval: list[float], **more: object) -> Batch:
    """Patients with these times; `image` may be given."""
    image = more.pop("image", torch.zeros(len(time), 0))
    return Batch(
        sample_id=tuple(f"p{i}" for i in range(len(time))),
        image=image,
        time=torch.tensor(time),
        event=torch.tensor(event),
        interval=torch.tensor(interval),
        **more,
    )


def test_hazards_of_one_half_and_one_third_by_hand() -> None:
    scores = torch.tensor([[0.0, math.log(0.5)]], dtype=torch.float64)  # h = 1/2, 1/3
    assert log_survival(scores).exp().tolist() == [pytest.approx([1 / 2, 1 / 3])]
    assert log_outcomes(scores).exp().tolist() == [pytest.approx([1 / 2, 1 / 6, 1 / 3])]
    # s = (1/2 + 1/3) / 2 = 5/12
    assert risk(scores).item() == pytest.approx(math.log(7 / 5))


@given(scores_of_four)
def test_outcomes_sum_to_one_and_lead_back_to_the_scores(values: list[float]) -> None:
    scores = torch.tensor([values], dtype=torch.float64)
    outcomes = log_outcomes(scores)
    assert outcomes.exp().sum().item() == pytest.approx(1)
    # Whatever constant is added.
    torch.testing.assert_close(log_odds(outcomes + 3), scores, rtol=1e-8, atol=1e-8)


def test_likelihood_is_that_of_the_event_or_of_living_through_the_interval() -> None:
    hazards = torch.tensor([[0.1, 0.2, 0.4]] * 5, dtype=torch.float64)
    event = torch.tensor([1.0, 1.0, 0.0, 0.0, NAN])
    interval = torch.tensor([0.0, 2.0, 1.0, 2.0, NAN])
    expected = [0.1, 0.9 * 0.8 * 0.4, 0.9 * 0.8, 0.9 * 0.8 * 0.6, 1.0]
    outcomes = log_outcomes(hazards.logit())
    found = log_likelihood(outcomes, event, interval)
    assert found.exp().tolist() == pytest.approx(expected)
    # The same of each of several distributions, and as a sum of binary cross-entropies.
    both = log_likelihood(torch.stack([outcomes, outcomes], dim=1), event, interval)
    torch.testing.assert_close(both, torch.stack([found, found], dim=1))
    labels = hazard_labels(event.double(), interval.double(), 3)
    torch.testing.assert_close(known_cross_entropy(hazards.logit(), labels), -found)


def test_labels_end_with_follow_up() -> None:
    labels = hazard_labels(torch.tensor([1.0, 0.0, NAN]), torch.tensor([1.0, 1.0, NAN]), 3)
    expected = [[0, 1, NAN], [0, 0, NAN], [NAN, NAN, NAN]]
    np.testing.assert_array_equal(labels.numpy(), np.array(expected))
    assert dies_early(hazard_labels(torch.ones(4), torch.arange(4.0), 4)).tolist() == [
        True, True, False, False,
    ]  # fmt: skip


@given(scores_of_four, scores_of_four)
def test_risk_orders_patients_as_the_sum_of_survival_does(
    one: list[float], other: list[float]
) -> None:
    scores = torch.tensor([one, other], dtype=torch.float64)
    lived = log_survival(scores).exp().sum(dim=1)
    if abs(float(lived[0] - lived[1])) > 1e-9:
        ordered = risk(scores)
        assert bool(ordered[0] < ordered[1]) == bool(lived[0] > lived[1])


@pytest.mark.parametrize("level", [-80.0, -20.0, 0.0, 20.0, 80.0])
@pytest.mark.parametrize("interval", range(4))
def test_the_risk_has_a_gradient_where_probabilities_are_flat(level: float, interval: int) -> None:
    scores = torch.full((1, 4), level, requires_grad=True)
    batch = followed([1.0], [1.0], [float(interval)])
    loss = survival_risk(TASK.decisions(scores, batch)).sum()
    (gradient,) = torch.autograd.grad(loss, scores)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().sum()) > 0.5


def test_harm_is_a_low_risk_of_an_early_event_and_a_high_one_of_everyone_else() -> None:
    batch = followed([1, 9, 1, 9, NAN], [1, 1, 0, 0, NAN], [0, 3, 0, 3, NAN])
    low, high = torch.full((5, 4), -2.0), torch.full((5, 4), 2.0)
    harm_of = [TASK.harm(TASK.decisions(scores, batch)) for scores in (low, high)]
    assert (harm_of[0] > harm_of[1]).tolist() == [True, False, False, False, False]
    assert (harm_of[0] < harm_of[1]).tolist() == [False, True, True, True, False]
    assert [float(harm[-1]) for harm in harm_of] == [0, 0]
    assert torch.equal(survival_harm(TASK.decisions(high, batch)), harm_of[1])
    right = [TASK.performance(TASK.decisions(scores, batch)) for scores in (low, high)]
    lived = float(log_survival(low[:1].double()).exp().mean())
    assert right[0].tolist() == pytest.approx([1 - lived, lived, lived, lived, 0.5])
    broken = torch.full((5, 4), NAN)
    assert TASK.harm(TASK.decisions(broken, batch))[:4].tolist() == [math.inf] * 4


def test_chance_is_that_of_the_likelier_of_early_and_late() -> None:
    batch = followed([1, 2, 9, 9, NAN], [1, 1, 1, 0, NAN], [0, 0, 3, 3, NAN])
    counted = TASK.counted(batch)
    assert counted.tolist() == [True, True, True, True, False]
    assert TASK.chance(batch, 4, counted) == 0.5
    assert TASK.chance(batch, 4, torch.tensor([True, True, True, False, False])) == 2 / 3


def test_uncertainty_is_that_of_when_the_event_comes() -> None:
    assert isinstance(TASK, OutcomeTask)
    sure, none = torch.tensor([[-50.0, 50.0, 0.0]]), torch.full((1, 3), -50.0)
    even = log_odds(torch.zeros(1, 4))  # each of the four outcomes alike
    maps = TASK.maps(torch.cat([sure, none, even]))
    assert maps["entropy"].tolist() == pytest.approx([0, 0, math.log(4)], abs=1e-6)
    assert maps["least-confidence"].tolist() == pytest.approx([0, 0, 0.75], abs=1e-6)


# Methods


EDGES = FollowUp(unit="days", edges=(0.0, 1.0, 2.0, 3.0, 5.0))


def method_of(name: str = "classifier", **changes: object) -> Method:
    manifest = Manifest(
        name="toy", tasks=(TaskName.SURVIVAL,), image_shape=(1, 12, 12), image_scale=1.0,
        classes=(), mean=(0.5,), std=(0.25,), split_counts={"train": 8}, columns={},
        fingerprint="0", follow_up=EDGES,
    )  # fmt: skip
    config = {**Space([name], {}).defaults(name), "width": 4, "depth": 2, **changes}
    method: Method = METHODS[name](config, manifest)
    return method


def bright(count: int = 24, seed: int = 0) -> Batch:
    """The brighter the image the earlier the event; every fourth patient is censored."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(count, generator=generator)
    image = 0.3 * torch.rand(count, 1, 12, 12, generator=generator)
    image = image + 0.5 * level[:, None, None, None]
    time = 4.9 * (1 - level)
    event = (torch.arange(count) % 4 > 0).float()
    edges = torch.tensor(EDGES.edges[1:-1])
    interval = torch.bucketize(time, edges, right=True).float()
    return Batch(
        sample_id=tuple(map(str, range(count))), image=image, time=time, event=event,
        interval=interval,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> tuple[Method, torch.nn.Module]:
    method = method_of(dropout=0.0)
    torch.manual_seed(0)
    network = method.network()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    batch = bright()
    for step in range(40):
        optimiser.zero_grad()
        method.loss(network, batch, Progress(step, 40)).total.backward()
        optimiser.step()
    return method, network.eval()


def c_index(prediction: Prediction, batch: Batch) -> float:
    state = SurvivalMetrics()
    state.update(prediction, batch)
    return state.compute()["c_index"]


def test_a_classifier_learns_who_dies_first(trained: tuple[Method, torch.nn.Module]) -> None:
    method, network = trained
    unseen = bright(seed=1)
    prediction = method.predict(network, unseen)
    assert prediction.scores.shape == (24, 4)
    assert not prediction.exclusive
    assert c_index(prediction, unseen) > 0.85


@pytest.mark.parametrize("attack", ["fast", "full", "pgd"])
def test_an_attack_turns_the_order_of_the_patients(
    trained: tuple[Method, torch.nn.Module], attack: str
) -> None:
    method, network = trained
    batch = bright(seed=1)
    attacked = adversary(attack, method, network, steps=5)(batch, 0.3)
    assert float((attacked.image - batch.image).abs().max()) <= 0.3 + 1e-6
    assert c_index(method.predict(network, attacked), batch) < (0.5 if attack != "pgd" else 0.8)


def test_smoothed_labels_by_hand() -> None:
    batch = followed([1.5], [1.0], [1.0])
    scores = torch.tensor([[0.3, -0.2, 5.0, 5.0]], dtype=torch.float64)
    h = scores.sigmoid()[0]
    expected = -(0.95 * math.log(1 - h[0]) + 0.05 * math.log(h[0]))
    expected -= 0.95 * math.log(h[1]) + 0.05 * math.log(1 - h[1])
    assert isinstance(TASK, OutcomeTask)
    assert TASK.loss(scores, batch, smoothing=0.1).item() == pytest.approx(expected)


def test_data_without_times_are_refused() -> None:
    assert isinstance(TASK, OutcomeTask)
    bare = dataclasses.replace(method_of().manifest, follow_up=None)
    with pytest.raises(UserError, match="no times and events"):
        TASK.outputs(bare)
    with pytest.raises(ValueError, match="times and events"):
        TASK.truth(Batch(sample_id=("a",), image=torch.zeros(1, 0)))


def test_error_of_a_patient_is_what_was_given_to_anything_else() -> None:
    columns = {
        "time": np.array([1.0, 2.0]), "event": np.array([1.0, 0.0]),
        "interval": np.array([1.0, 1.0]), "risk": np.zeros(2),
        "survival": np.array([[0.9, 0.6], [0.9, 0.6]]),
    }  # fmt: skip
    assert FollowedUp(columns, np.zeros(2)).error.tolist() == pytest.approx([0.7, 0.4])
