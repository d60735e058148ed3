"""What every metric state keeps to: range, order, split over workers, NaN, perfect predictions."""

import math

import numpy as np
import pytest
import torch

from data_pipelines.schema import Batch
from trainables.contract import Prediction
from trainables.metrics.base import MetricState
from trainables.metrics.catalog import METRICS, STATES

CLASSES = list(dict.fromkeys(STATES.values()))
by_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
by_name = pytest.mark.parametrize("name", METRICS)

Pair = tuple[Prediction, Batch]


def pair(p: torch.Tensor, y: torch.Tensor, u: torch.Tensor | None = None) -> Pair:
    """Probability, truth and uncertainty (B, *spatial) as a state gets them."""
    ids = tuple(f"s{i}" for i in range(len(p)))
    batch = Batch(sample_id=ids, image=torch.zeros_like(p).unsqueeze(1), mask=y.unsqueeze(1))
    doubt = p * (1 - p) if u is None else u
    return Prediction(p.unsqueeze(1), {"bernoulli-variance": doubt}), batch


def draw(seed: int, images: int = 5, shape: tuple[int, ...] = (12, 10)) -> Pair:
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(images, *shape, generator=g)
    y = (torch.rand(images, *shape, generator=g) < 0.3).float()
    y[0] = 0
    return pair(p, y, torch.rand(images, *shape, generator=g))


def rows(whole: Pair, index: list[int]) -> Pair:
    prediction, batch = whole
    maps = {k: v[index] for k, v in prediction.uncertainty.items()}
    return Prediction(prediction.probability[index], maps), batch.select(index)


def compute(cls: type[MetricState], *pairs: Pair) -> dict[str, float]:
    state = cls()
    for prediction, batch in pairs:
        state.update(prediction, batch)
    return state.compute()


@by_name
@pytest.mark.parametrize("shape", [(12, 10), (4, 5, 6)])
def test_range_on_random_input(name: str, shape: tuple[int, ...]) -> None:
    info = METRICS[name]
    for seed in range(5):
        value = compute(STATES[name], draw(seed, shape=shape))[name]
        assert info.low <= value <= info.high


@by_name
def test_a_perfect_prediction_is_best(name: str) -> None:
    y = (torch.rand(3, 16, 16) < 0.3).float()
    info = METRICS[name]
    best = info.high if info.direction == "max" else info.low
    value = compute(STATES[name], pair(y, y))[name]
    # The clamp of the likelihood costs 1e-7 even here.
    assert value == pytest.approx(best, abs=1.1e-7)
    noisy = (y + 0.7 * torch.rand_like(y) * (1 - 2 * y)).clamp(0, 1)
    worse = compute(STATES[name], pair(noisy, y, torch.rand_like(y)))[name]
    assert worse < value if info.direction == "max" else worse > value


@by_class
def test_merging_in_any_order_is_one_update(cls: type[MetricState]) -> None:
    whole = draw(0, images=9)
    reference = compute(cls, whole)
    parts = [[4], [8, 0, 3], [7, 1], [2, 6, 5]]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        assert compute(cls, *(rows(whole, parts[i]) for i in order)) == pytest.approx(
            reference, abs=1e-12
        )
    states = []
    for part in parts:
        state = cls()
        state.update(*rows(whole, part))
        states.append(state)
    left, right = cls(), cls()
    for state in states:
        left.merge(state)
    tail = cls()
    for state in states[1:]:
        tail.merge(state)
    right.merge(tail)
    right.merge(states[0])
    assert left.compute() == pytest.approx(reference, abs=1e-12)
    assert right.compute() == pytest.approx(reference, abs=1e-12)


@by_class
def test_state_survives_the_way_to_another_process(cls: type[MetricState]) -> None:
    state = cls()
    state.update(*draw(1))
    stored = state.state_dict()
    assert all(isinstance(v, np.ndarray) and v.dtype == np.float64 for v in stored.values())
    back = cls.from_state_dict(stored)
    assert back.compute() == state.compute()
    back.update(*draw(2))
    state.update(*draw(2))
    assert back.compute() == state.compute()


@by_class
def test_memory_does_not_grow(cls: type[MetricState]) -> None:
    state = cls()
    state.update(*draw(1))
    sizes = {k: v.nbytes for k, v in state.state_dict().items()}
    for seed in range(5):
        state.update(*draw(seed, images=50))
    assert {k: v.nbytes for k, v in state.state_dict().items()} == sizes


@by_class
def test_no_image_is_no_number(cls: type[MetricState]) -> None:
    assert all(math.isnan(v) for v in cls().compute().values())
    merged = cls()
    merged.update(*draw(3))
    before = merged.compute()
    merged.merge(cls())
    assert merged.compute() == before


@by_class
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_prediction_that_is_no_number_is_never_dropped(
    cls: type[MetricState], bad: float
) -> None:
    prediction, batch = draw(4)
    prediction.probability[1, 0, 2, 3] = bad
    state = cls()
    state.update(*draw(5))
    state.update(prediction, batch)
    assert all(math.isnan(v) for v in state.compute().values())


@by_class
def test_half_precision_is_judged_in_double(cls: type[MetricState]) -> None:
    prediction, batch = draw(6)
    half = Prediction(
        prediction.probability.bfloat16(),
        {k: v.bfloat16() for k, v in prediction.uncertainty.items()},
    )
    wide = Prediction(
        half.probability.double(), {k: v.double() for k, v in half.uncertainty.items()}
    )
    assert compute(cls, (half, batch)) == pytest.approx(compute(cls, (wide, batch)), abs=1e-12)


@by_class
def test_masks_must_fit(cls: type[MetricState]) -> None:
    prediction, batch = draw(7)
    with pytest.raises(ValueError, match="masks"):
        cls().update(prediction, Batch(sample_id=batch.sample_id, image=batch.image))
    two = Prediction(prediction.probability.repeat(1, 2, 1, 1), prediction.uncertainty)
    with pytest.raises(ValueError, match="differ"):
        cls().update(two, batch)
