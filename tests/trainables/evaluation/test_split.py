"""An evaluation of a tiny network: conditions, splitting over workers, modes, curves, panel."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.contract import Loss, Method, Prediction, Progress
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan, evaluate, panel
from trustsweep.trainables.metrics.catalog import (
    METRICS,
    SHIFTS,
    all_names,
    metric_info,
    skill_names,
)
from trustsweep.trainables.metrics.overlap import Overlap
from trustsweep.trainables.metrics.shift import Shift
from trustsweep.trainables.tasks import task_named
from trustsweep.trainables.uncertainty import bernoulli_maps

PLAN = EvaluationPlan(
    epsilons=(0.0, 0.02, 0.1), corruptions=(("gaussian-noise", 1), ("gaussian-noise", 5))
)
MEASURED = [name for name, info in METRICS.items() if TaskName.SEGMENTATION in info.tasks]


class Threshold(Method):
    """A convolution, a normalisation with running statistics, and dropout, on a bright lesion."""

    tasks = (TaskName.SEGMENTATION,)
    uncertainties = ("bernoulli-variance", "entropy")

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        first = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.constant_(first.weight, 3.0)
        nn.init.constant_(first.bias, -12.0)
        return nn.Sequential(first, nn.BatchNorm2d(1), nn.Dropout(0.5))

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        logits = network(batch.image)
        per_sample = nn.functional.binary_cross_entropy_with_logits(
            logits, batch.mask, reduction="none"
        ).mean(dim=(1, 2, 3))
        return Loss(per_sample.mean(), per_sample)

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        p = network(batch.image).sigmoid()
        return Prediction.from_probability(p, bernoulli_maps(p[:, 0]))


@pytest.fixture(scope="module")
def method() -> Threshold:
    manifest = Manifest(
        name="toy", tasks=(TaskName.SEGMENTATION,), image_shape=(1, 16, 16), image_scale=1.0,
        classes=("background", "lesion"), mean=(0.0,), std=(1.0,), split_counts={}, columns={},
        fingerprint="0",
    )  # fmt: skip
    return Threshold({}, manifest)


def batches(sizes: tuple[int, ...], seed: int = 0) -> list[Batch]:
    total = sum(sizes)
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(total, 1, 16, 16)
    for i in range(1, total):
        row, column, side = torch.randint(2, 9, (3,), generator=g).tolist()
        mask[i, 0, row : row + side, column : column + side] = 1
    image = (0.3 + 0.3 * mask + 0.1 * torch.randn(mask.shape, generator=g)).clamp(0, 1)
    whole = Batch(sample_id=tuple(f"case-{i}" for i in range(total)), image=image, mask=mask)
    starts = np.cumsum((0, *sizes))
    return [whole.select(range(a, b)) for a, b in itertools.pairwise(starts)]


def corrupt(batch: Batch, name: str, severity: int) -> Batch:
    """Noise that depends on the sample alone, as the real corruptions' does."""
    assert name == "gaussian-noise"
    noise = [
        torch.randn(16, 16, generator=torch.Generator().manual_seed(int(s.split("-")[1])))
        for s in batch.sample_id
    ]
    noisy = batch.image + 0.05 * severity * torch.stack(noise).unsqueeze(1)
    return batch.with_image(noisy.clamp(0, 1))


def attack_of(method: Threshold, network: nn.Module) -> Callable[..., Batch]:
    def attack(batch: Batch, epsilon: float, start: Tensor | None = None) -> Batch:
        """One signed step on the network's own loss; needs gradients inside the evaluation."""
        image = batch.image.clone().requires_grad_()
        loss = method.loss(network, batch.with_image(image), Progress(0, 1))
        (gradient,) = torch.autograd.grad(loss.per_sample.sum(), image)
        return batch.with_image((batch.image + epsilon * gradient.sign()).clamp(0, 1))

    return attack


def run(method: Threshold, parts: list[Batch], plan: EvaluationPlan = PLAN) -> Evaluation:
    network = method.network()
    attack = attack_of(method, network)
    return evaluate(method, network, parts, plan, corrupt=corrupt, attack=attack)


def test_every_name_in_order_and_in_range(method: Threshold) -> None:
    found = run(method, batches((4, 4))).compute()
    assert list(found) == all_names(PLAN, TaskName.SEGMENTATION)
    for name, value in found.items():
        info = metric_info(name)
        assert info.low <= value <= info.high, name


def test_conditions_are_what_they_say(method: Threshold) -> None:
    (batch,) = batches((8,))
    found = run(method, [batch]).compute()
    network = method.network().eval()
    attack = attack_of(method, network)
    for condition, shown in (
        ("clean", batch),
        ("corrupted@gaussian-noise-5", corrupt(batch, "gaussian-noise", 5)),
        ("attacked@0.1", attack(batch, 0.1)),
    ):
        state = Overlap()
        with torch.no_grad():
            state.update(method.predict(network, shown), batch)
        for name, value in state.compute().items():
            assert found[f"{condition}.{name}"] == value
    shift = Shift()
    worse = attack(batch, 0.1)
    with torch.no_grad():
        before, after = (method.predict(network, b) for b in (batch, worse))
    shift.update(before, after, batch)
    for name, value in shift.compute().items():
        assert found[f"shift@0.1.{name}"] == value
    assert 0 < found["shift@0.1.auroc"] != 0.5
    assert found["clean.dice"] > found["corrupted@gaussian-noise-5.dice"]
    assert found["clean.dice"] > found["attacked@0.02.dice"] > found["attacked@0.1.dice"]


def test_means_and_areas(method: Threshold) -> None:
    evaluation = run(method, batches((8,)))
    found, curves = evaluation.compute(), evaluation.curves()
    for name in MEASURED:
        cells = [found[f"corrupted@gaussian-noise-{s}.{name}"] for s in (1, 5)]
        assert found[f"corrupted.{name}"] == pytest.approx(np.mean(cells))
        budgets = [found[f"attacked@{e}.{name}"] for e in ("0.02", "0.1")]
        assert found[f"attacked.{name}"] == pytest.approx(np.mean(budgets))
    for name in SHIFTS:
        budgets = [found[f"shift@{e}.{name}"] for e in ("0.02", "0.1")]
        assert found[f"shift.{name}"] == pytest.approx(np.mean(budgets))
    assert curves["epsilon"] == [0.0, 0.02, 0.1]
    for name in ("dice", "iou"):
        a, b, c = curves[name]
        assert a == found[f"clean.{name}"]
        assert c == found[f"attacked@0.1.{name}"]
        area = (0.02 * (a + b) / 2 + 0.08 * (b + c) / 2) / 0.1
        assert found[f"{name}_area"] == pytest.approx(area)
        assert min(a, b, c) <= area <= max(a, b, c)


def test_workers_and_batch_order_do_not_matter(method: Threshold) -> None:
    parts = batches((2, 3, 1, 4))
    whole = run(method, parts)
    first, second = run(method, [parts[3], parts[0]]), run(method, parts[1:3])
    received = Evaluation.from_state_dict(second.state_dict())
    received.merge(Evaluation.from_state_dict(first.state_dict()))
    assert received.compute() == pytest.approx(whole.compute(), abs=1e-12)
    assert received.curves()["dice"] == pytest.approx(whole.curves()["dice"], abs=1e-12)
    other = EvaluationPlan(epsilons=(0.0, 0.02))
    with pytest.raises(ValueError, match="different plans"):
        whole.merge(Evaluation(other, task_named(TaskName.SEGMENTATION)))


def test_a_worker_without_images_changes_nothing(method: Threshold) -> None:
    idle = run(method, [])
    assert all(math.isnan(v) for v in idle.compute().values())
    busy = run(method, batches((3,)))
    idle.merge(busy)
    assert idle.compute() == busy.compute()


def test_clean_plan_neither_corrupts_nor_attacks(method: Threshold) -> None:
    def refuse(*_: object) -> Batch:
        raise AssertionError("the clean plan asked for another image")

    network = method.network()
    parts = batches((4,))
    light = evaluate(method, network, parts, PLAN.clean(), corrupt=refuse, attack=refuse)
    full = run(method, parts).compute()
    names = [f"clean.{name}" for name in MEASURED]
    names += skill_names(names)
    assert light.compute() == {name: full[name] for name in names}


def test_modes_and_flags_are_left_as_found(method: Threshold) -> None:
    network = method.network().train()
    network[1].eval()
    network[0].bias.requires_grad_(False)
    modes = [m.training for m in network.modules()]
    flags = [p.requires_grad for p in network.parameters()]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    attack = attack_of(method, network)
    evaluate(method, network, batches((4,)), PLAN, corrupt=corrupt, attack=attack)
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == flags
    assert all(p.grad is None for p in network.parameters())
    after = network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)

    def fail(batch: Batch, epsilon: float, start: Tensor | None) -> Batch:
        raise RuntimeError("the attack failed")

    with pytest.raises(RuntimeError, match="attack failed"):
        evaluate(method, network, batches((4,)), PLAN, corrupt=corrupt, attack=fail)
    assert [m.training for m in network.modules()] == modes


def test_reliability_of_a_condition(method: Threshold) -> None:
    evaluation = run(method, batches((4, 2)))
    found = evaluation.compute()
    for condition in ("clean", "attacked@0.1", "corrupted@gaussian-noise-1"):
        curve = evaluation.reliability(condition)
        count = np.array(curve["count"])
        assert count.sum() == 6 * 256
        gaps = [
            n * abs(a - c)
            for n, a, c in zip(count, curve["accuracy"], curve["confidence"], strict=True)
            if n
        ]
        assert sum(gaps) / count.sum() == pytest.approx(found[f"{condition}.ece"])


def test_the_chosen_uncertainty_is_judged(method: Threshold) -> None:
    parts = batches((4,))
    default = run(method, parts).compute()
    plan = EvaluationPlan(
        epsilons=PLAN.epsilons, corruptions=PLAN.corruptions, uncertainty="bernoulli-variance"
    )
    assert run(method, parts, plan).compute() == default
    missing = EvaluationPlan(uncertainty="vacuity")
    with pytest.raises(UserError, match="no uncertainty map 'vacuity'; it has bernoulli-variance"):
        run(method, parts, missing)


@pytest.mark.parametrize("epsilons", [(), (0.01,), (0.01, 0.0), (0.0, 0.01, 0.01), (-0.1, 0.0)])
def test_impossible_budgets_are_refused(epsilons: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="epsilons"):
        EvaluationPlan(epsilons=epsilons)


def test_panel(method: Threshold) -> None:
    network = method.network().train()
    (batch,) = batches((3,))
    shown = panel(method, network, batch, attack_of(method, network), 0.1)
    assert set(shown) == {
        "image", "mask", "probability", "uncertainty",
        "image_attacked", "probability_attacked", "uncertainty_attacked",
    }  # fmt: skip
    assert all(v.shape == (3, 16, 16) and v.dtype == np.float16 for v in shown.values())
    assert all(module.training for module in network.modules())
    assert np.array_equal(shown["mask"], batch.mask[:, 0].numpy())
    moved = np.abs(shown["image_attacked"] - shown["image"])
    assert 0.09 < moved.max() <= 0.1 + 1e-3
    p = shown["probability"].astype(float)
    assert shown["uncertainty"] == pytest.approx(p * (1 - p), abs=2e-3)
