"""What every metric state keeps to: range, order, split over workers, NaN, perfect predictions."""

import math

import numpy as np
import pytest
import torch

from trustsweep.data_pipelines.schema import Batch, TaskName
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics import samples
from trustsweep.trainables.metrics.base import MetricState
from trustsweep.trainables.metrics.catalog import METRICS, state_classes
from trustsweep.trainables.metrics.samples import SampleState

TASKS = tuple(TaskName)
STATES = {task: state_classes(METRICS, task) for task in TASKS}
by_class = pytest.mark.parametrize(
    ("cls", "task"),
    [pytest.param(cls, task, id=cls.__name__) for task in TASKS for cls in STATES[task]],
)
by_name = pytest.mark.parametrize(
    ("name", "task"), [(n, task) for n, info in METRICS.items() for task in info.tasks]
)

Pair = tuple[Prediction, Batch]


def pair(p: torch.Tensor, y: torch.Tensor, u: torch.Tensor | None = None) -> Pair:
    """Probability, truth and uncertainty (B, *spatial) as a state gets them."""
    ids = tuple(f"s{i}" for i in range(len(p)))
    batch = Batch(sample_id=ids, image=torch.zeros_like(p).unsqueeze(1), mask=y.unsqueeze(1))
    doubt = p * (1 - p) if u is None else u
    return Prediction.from_probability(p.unsqueeze(1), {"bernoulli-variance": doubt}), batch


def labelled(p: torch.Tensor, y: torch.Tensor, u: torch.Tensor, ids: str = "s") -> Pair:
    """Probabilities (B, K), classes and uncertainty (B,) as a state gets them."""
    names = tuple(f"{ids}{i}" for i in range(len(p)))
    return Prediction.from_probability(p, {"entropy": u}), Batch(
        sample_id=names, image=torch.zeros(len(p)), label=y
    )


def several(p: torch.Tensor, y: torch.Tensor, u: torch.Tensor, ids: str = "s") -> Pair:
    """Probabilities and labels (B, K), each a question of its own, and uncertainty (B,)."""
    names = tuple(f"{ids}{i}" for i in range(len(p)))
    return Prediction.from_probability(p, {"entropy": u}, exclusive=False), Batch(
        sample_id=names, image=torch.zeros(len(p)), label=y
    )


def followed(
    hazards: torch.Tensor, interval: torch.Tensor, event: torch.Tensor, u: torch.Tensor,
    ids: str = "s",
) -> Pair:  # fmt: skip
    """Hazards (B, K); interval, event and uncertainty (B,). Times lie in their intervals."""
    names = tuple(f"{ids}{i}" for i in range(len(hazards)))
    within = (torch.arange(len(hazards)) + 1) / (len(hazards) + 2)
    batch = Batch(
        sample_id=names, image=torch.zeros(len(hazards)), time=interval + within, event=event,
        interval=interval,
    )  # fmt: skip
    return Prediction.from_probability(hazards, {"entropy": u}, exclusive=False), batch


def pixels(p: torch.Tensor, y: torch.Tensor, u: torch.Tensor, *, exclusive: bool) -> Pair:
    """Probabilities (B, K, *spatial), masks (B, 1 or K, *spatial), uncertainty (B, *spatial)."""
    ids = tuple(f"s{i}" for i in range(len(p)))
    batch = Batch(sample_id=ids, image=torch.zeros_like(p[:, :1]), mask=y.float())
    maps = {"bernoulli-variance": u}
    return Prediction.from_probability(p, maps, exclusive=exclusive), batch


def draw(
    task: TaskName, seed: int, images: int = 5, shape: tuple[int, ...] = (12, 10), classes: int = 3
) -> Pair:
    g = torch.Generator().manual_seed(seed)
    if task is TaskName.CLASSIFICATION:
        p = (2 * torch.randn(images, max(classes, 2), generator=g)).softmax(dim=1)
        y = torch.arange(images) % max(classes, 2)
        u = torch.rand(images, generator=g)
        return labelled(p if classes > 1 else p[:, 1:], y, u, f"{seed}-")
    if task is TaskName.MULTILABEL:
        y = (torch.rand(images, classes, generator=g) < 0.4).float()
        y[0], y[1] = 1, 0  # so that every label is there, and is not
        y[2, 0] = math.nan
        p = torch.rand(images, classes, generator=g)
        return several(p, y, torch.rand(images, generator=g), f"{seed}-")
    if task is TaskName.SURVIVAL:
        hazards = torch.rand(images, 4, generator=g)
        interval = torch.arange(images) % 4.0
        event = (torch.arange(images) % 3 < 2).float()
        return followed(hazards, interval, event, torch.rand(images, generator=g), f"{seed}-")
    if task is TaskName.MULTICLASS_SEGMENTATION:
        size = max(classes, 2)
        p = (2 * torch.randn(images, size, *shape, generator=g)).softmax(dim=1)
        y = torch.randint(0, size, (images, 1, *shape), generator=g)
        y[0] = 0
        return pixels(p, y, torch.rand(images, *shape, generator=g), exclusive=True)
    if task is TaskName.REGION_SEGMENTATION:
        p = torch.rand(images, classes, *shape, generator=g)
        y = torch.rand(images, classes, *shape, generator=g) < 0.3
        y[0] = 0
        return pixels(p, y, torch.rand(images, *shape, generator=g), exclusive=False)
    p = torch.rand(images, *shape, generator=g)
    y = (torch.rand(images, *shape, generator=g) < 0.3).float()
    y[0] = 0
    return pair(p, y, torch.rand(images, *shape, generator=g))


def perfect(task: TaskName, noise: float) -> Pair:
    """The truth as the prediction, moved by `noise` at most."""
    g = torch.Generator().manual_seed(0)
    if task is TaskName.CLASSIFICATION:
        y = torch.arange(30) % 3
        truth = torch.nn.functional.one_hot(y).float()
        p = truth + noise * (torch.rand(30, 3, generator=g).softmax(1) - truth)
        return labelled(p, y, torch.rand(30, generator=g) if noise else torch.zeros(30))
    if task is TaskName.MULTILABEL:
        y = (torch.rand(30, 3, generator=g) < 0.4).float()
        p = (y + noise * torch.rand(30, 3, generator=g) * (1 - 2 * y)).clamp(0, 1)
        return several(p, y, torch.rand(30, generator=g) if noise else torch.zeros(30))
    if task is TaskName.SURVIVAL:
        u = torch.rand(8, generator=g) if noise else torch.zeros(8)
        truth = torch.eye(8)
        hazards = truth + noise * torch.rand(8, 8, generator=g) * (1 - 2 * truth)
        return followed(hazards, torch.arange(8.0), torch.ones(8), u)
    if task is TaskName.MULTICLASS_SEGMENTATION:
        y = torch.randint(0, 3, (6, 1, 16, 16), generator=g)
        y[0] = 0
        truth = torch.nn.functional.one_hot(y[:, 0]).movedim(-1, 1).float()
        p = truth + noise * (torch.rand(truth.shape, generator=g).softmax(1) - truth)
        doubt = torch.rand(6, 16, 16, generator=g) if noise else torch.zeros(6, 16, 16)
        return pixels(p, y, doubt, exclusive=True)
    if task is TaskName.REGION_SEGMENTATION:
        truth = (torch.rand(3, 2, 16, 16, generator=g) < 0.3).float()
        truth[0] = 0
        p = (truth + noise * torch.rand(truth.shape, generator=g) * (1 - 2 * truth)).clamp(0, 1)
        doubt = torch.rand(3, 16, 16, generator=g) if noise else torch.zeros(3, 16, 16)
        return pixels(p, truth, doubt, exclusive=False)
    truth = (torch.rand(3, 16, 16, generator=g) < 0.3).float()
    truth[0] = 0
    p = (truth + noise * torch.rand(truth.shape, generator=g) * (1 - 2 * truth)).clamp(0, 1)
    return pair(p, truth, torch.rand(truth.shape, generator=g) if noise else None)


def rows(whole: Pair, index: list[int]) -> Pair:
    prediction, batch = whole
    maps = {k: v[index] for k, v in prediction.uncertainty.items()}
    said = Prediction(prediction.scores[index], maps, exclusive=prediction.exclusive)
    return said, batch.select(index)


def compute(cls: type[MetricState], *pairs: Pair) -> dict[str, float]:
    state = cls()
    for prediction, batch in pairs:
        state.update(prediction, batch)
    return state.compute()


@by_name
@pytest.mark.parametrize("kind", [{}, {"shape": (4, 5, 6), "classes": 1}], ids=["flat", "other"])
def test_range_on_random_input(name: str, task: TaskName, kind: dict) -> None:
    info = METRICS[name]
    (cls,) = state_classes({name: info}, task)
    for seed in range(5):
        value = compute(cls, draw(task, seed, **kind))[name]
        assert info.low <= value <= info.high


@by_name
def test_a_perfect_prediction_is_best(name: str, task: TaskName) -> None:
    info = METRICS[name]
    if info.direction is None:  # describes a model
        return
    (cls,) = state_classes({name: info}, task)
    best = info.high if info.direction == "max" else info.low
    value = compute(cls, perfect(task, 0))[name]
    # The clamp of the likelihood costs 1e-7 even here.
    assert value == pytest.approx(best, abs=1.1e-7)
    worse = compute(cls, perfect(task, 0.9))[name]
    assert worse < value if info.direction == "max" else worse > value


@by_class
def test_merging_in_any_order_is_one_update(cls: type[MetricState], task: TaskName) -> None:
    whole = draw(task, 0, images=9)
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
def test_state_survives_the_way_to_another_process(cls: type[MetricState], task: TaskName) -> None:
    state = cls()
    state.update(*draw(task, 1))
    stored = state.state_dict()
    assert all(isinstance(v, np.ndarray) for v in stored.values())
    assert {v.dtype.name for v in stored.values()} <= {"float64", "uint64"}
    back = cls.from_state_dict(stored)
    assert back.compute() == state.compute()
    back.update(*draw(task, 2))
    state.update(*draw(task, 2))
    assert back.compute() == state.compute()


@by_class
def test_memory_does_not_grow(
    cls: type[MetricState], task: TaskName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "CAPACITY", 40)
    state = cls()
    state.update(*draw(task, 1, images=50))
    sizes = {k: v.nbytes for k, v in state.state_dict().items()}
    for seed in range(5):
        state.update(*draw(task, seed, images=50))
    assert {k: v.nbytes for k, v in state.state_dict().items()} == sizes


@by_class
def test_no_image_is_no_number(cls: type[MetricState], task: TaskName) -> None:
    empty = cls.from_state_dict(cls().state_dict())
    assert all(math.isnan(v) for v in empty.compute().values())
    state = cls()
    state.update(*draw(task, 3))
    before = state.compute()
    state.merge(empty)
    empty.merge(state)
    assert state.compute() == empty.compute() == before


@by_class
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.1, -0.1])
def test_a_prediction_that_is_no_number_is_never_dropped(
    cls: type[MetricState], task: TaskName, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "CAPACITY", 4)
    prediction, batch = draw(task, 4)
    probability = prediction.probability.clone()
    probability[1].flatten()[1] = bad
    prediction = Prediction.from_probability(
        probability, prediction.uncertainty, exclusive=prediction.exclusive
    )
    state = cls()
    state.update(*draw(task, 5))
    state.update(prediction, batch)
    state.update(*draw(task, 6))
    assert all(math.isnan(v) for v in state.compute().values())


@by_class
def test_half_precision_is_judged_in_double(cls: type[MetricState], task: TaskName) -> None:
    prediction, batch = draw(task, 6)
    half = Prediction(
        prediction.scores.bfloat16(),
        {k: v.bfloat16() for k, v in prediction.uncertainty.items()},
        exclusive=prediction.exclusive,
    )
    wide = Prediction(
        half.scores.double(),
        {k: v.double() for k, v in half.uncertainty.items()},
        exclusive=prediction.exclusive,
    )
    assert compute(cls, (half, batch)) == pytest.approx(compute(cls, (wide, batch)), abs=1e-12)


@by_class
def test_the_truth_must_fit(cls: type[MetricState], task: TaskName) -> None:
    prediction, batch = draw(task, 7)
    with pytest.raises(ValueError, match=r"needs a batch with (masks|labels|times)"):
        cls().update(prediction, Batch(sample_id=batch.sample_id, image=batch.image))
    p = prediction.probability
    other = p[..., 1:] if task.endswith("segmentation") else p[:, :1]
    said = Prediction.from_probability(
        other, prediction.uncertainty, exclusive=prediction.exclusive
    )
    with pytest.raises(ValueError, match="differ"):
        cls().update(said, batch)


@pytest.mark.parametrize(
    "cls", [cls for cls in STATES[TaskName.CLASSIFICATION] if issubclass(cls, SampleState)]
)
def test_a_sample_of_images_is_the_same_in_any_order_and_split(
    cls: type[MetricState], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "CAPACITY", 11)
    batches = [draw(TaskName.CLASSIFICATION, seed, images=8) for seed in range(4)]
    workers = [cls(), cls()]
    for index in (3, 1, 0, 2):
        workers[index % 2].update(*batches[index])
    workers[1].merge(workers[0])
    assert workers[1].compute() == compute(cls, *batches)
