"""What every registered method promises, at its space's defaults but narrow."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from trustsweep.data_pipelines.schema import Batch, FollowUp, Manifest, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.attacks import ScoreVictim, adversary, make_attack
from trustsweep.trainables.contract import Loss, Method, Prediction, Progress
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan, evaluate, panel
from trustsweep.trainables.metrics.catalog import all_names, metric_info
from trustsweep.trainables.metrics.overlap import image_dice
from trustsweep.trainables.metrics.pixels import Pixels
from trustsweep.trainables.regimes import from_config
from trustsweep.trainables.registry import MAPS, METHODS, REGIMES
from trustsweep.trainables.tasks.segmentation import Segmentation

torch.set_num_threads(1)
SHAPES = {"2d": (1, 20, 28), "2d-rgb": (3, 16, 16), "3d": (1, 12, 16, 10)}
PLAN = EvaluationPlan(epsilons=(0.0, 0.02, 0.05), corruptions=(("darker", 3),))
NOW = Progress(3, 6)

#: Of the data of the tests: two regions of a mask, the second within the first.
REGIONS = ("whole", "core")

every = pytest.mark.parametrize(
    "name", [f"{name} {task}" for name in METHODS for task in METHODS.fact(name, "tasks")]
)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_number_of_classes = pytest.mark.parametrize("classes", [2, 4])


def build(name: str, shape: tuple[int, ...] = SHAPES["2d"], classes: int = 2) -> Method:
    """A method by its name and task; `classes` is for those that exclude each other."""
    method_name, task = name.split()
    config = Space([method_name], {}).defaults(method_name)
    if "width" in config:
        config["width"] = 4
    manifest = Manifest(
        name="toy",
        tasks=(TaskName(task),),
        image_shape=shape,
        image_scale=1.0,
        classes=("background", "lesion", "scar", "oedema")[:classes],
        regions=REGIONS if task == TaskName.REGION_SEGMENTATION else (),
        mean=(0.4,) * shape[0],
        std=(0.2,) * shape[0],
        split_counts={"train": 4},
        columns={},
        fingerprint="0",
        follow_up=FollowUp(unit="days", edges=(0.0, 1.0, 2.0, 3.0, 4.0)),
    )
    method: Method = METHODS[method_name](config, manifest)
    return method


def toy(method: Method, size: int = 4) -> Batch:
    """Bright cubes on a noisy ground; the last image has none.

    The classes of a mask, and its regions, lie within each other.
    """
    generator = torch.Generator().manual_seed(1)
    shape, task = method.manifest.image_shape, method.task.name
    image = 0.4 * torch.rand((size, *shape), generator=generator)
    several = method.task.outputs(method.manifest) - 1 if method.task.exclusive else len(REGIONS)
    cubes = torch.zeros(size, max(several, 1), *shape[1:])
    for row in range(size - 1):
        for depth in range(cubes.shape[1]):
            corner = tuple(slice(row + 1, row + 7 - depth) for _ in shape[1:])
            cubes[(row, depth, *corner)] = 1
    image = (image + 0.3 * cubes[:, :1] + 0.2 * cubes.mean(1, keepdim=True)).clamp(0, 1)
    label = (cubes[:, 0].flatten(1).sum(1) > 0).long()
    mask = cubes[:, :1]
    if task is TaskName.MULTICLASS_SEGMENTATION:
        mask = cubes.sum(1, keepdim=True)
    elif task is TaskName.REGION_SEGMENTATION:
        mask = cubes
    elif task is TaskName.MULTILABEL:
        label = torch.stack([label, 1 - label, label, 1 - label], dim=1).float()
        label = label[:, : len(method.manifest.classes)]
    # Whoever has a lesion dies, the earlier the row the sooner; the last is censored.
    interval = torch.arange(size) % 4.0
    return Batch(
        sample_id=tuple(map(str, range(size))),
        image=image,
        mask=mask,
        label=label,
        time=interval + 0.5,
        event=(torch.arange(size) < size - 1).float(),
        interval=interval,
    )


def segments(method: Method) -> bool:
    return isinstance(method.task, Segmentation)


def network_of(method: Method, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return method.network()


@every_shape
@every
def test_loss_is_finite_and_reaches_every_parameter(name: str, shape: tuple[int, ...]) -> None:
    method = build(name, shape)
    network = network_of(method).train()
    loss = method.loss(network, toy(method), NOW)
    loss.total.backward()
    gradients = {n: p.grad for n, p in network.named_parameters()}
    assert math.isfinite(loss.total.item())
    assert [n for n, g in gradients.items() if g is None or not bool(g.isfinite().all())] == []
    assert sum(float(g.abs().sum()) for g in gradients.values() if g is not None) > 0


@every_number_of_classes
@every
def test_total_is_the_mean_of_the_samples_and_the_sum_of_its_parts(name: str, classes: int) -> None:
    method = build(name, classes=classes)
    loss = method.loss(network_of(method), toy(method), NOW)
    assert loss.per_sample.shape == (4,)
    assert loss.per_sample.requires_grad
    torch.testing.assert_close(loss.per_sample.mean(), loss.total)
    if loss.parts:
        torch.testing.assert_close(sum(loss.parts.values(), torch.zeros(())), loss.total.detach())
    assert not any(part.requires_grad for part in loss.parts.values())


@every
def test_loss_of_a_sample_is_its_own(name: str) -> None:
    method = build(name)
    network = network_of(method).eval()
    together = method.loss(network, toy(method), NOW).per_sample
    alone = method.loss(network, toy(method).select([2]), NOW).per_sample
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)


@every_number_of_classes
@every_shape
@every
def test_prediction_has_the_promised_shapes_and_ranges(
    name: str, shape: tuple[int, ...], classes: int
) -> None:
    method = build(name, shape, classes)
    prediction = method.predict(network_of(method).eval(), toy(method))
    spatial = shape[1:] if segments(method) else ()
    if method.task.exclusive and prediction.probability.shape[1] > 1:
        torch.testing.assert_close(prediction.probability.sum(1), torch.ones(4, *spatial))
    columns = {method.task.outputs(method.manifest)}
    if method.task.name is TaskName.CLASSIFICATION:
        columns.add(classes)  # two of two classes, or the log-odds of the second
    assert prediction.probability.shape[1] in columns
    assert prediction.exclusive == method.task.exclusive or prediction.scores.shape[1] == 1
    assert prediction.probability.shape[0] == 4
    assert prediction.probability.shape[2:] == spatial
    assert prediction.probability.dtype == torch.float32
    assert bool(((prediction.probability >= 0) & (prediction.probability <= 1)).all())
    assert tuple(prediction.uncertainty) == method.uncertainties
    for measure, values in prediction.uncertainty.items():
        assert measure in MAPS
        assert values.shape == (4, *spatial)
        assert bool(values.isfinite().all() & (values >= 0).all())


@every
def test_prediction_in_evaluation_mode_is_deterministic(name: str) -> None:
    method = build(name)
    network = network_of(method).eval()
    with torch.no_grad():
        first, second = method.predict(network, toy(method)), method.predict(network, toy(method))
    assert torch.equal(first.probability, second.probability)


@every
def test_gradient_reaches_the_image(name: str) -> None:
    method = build(name)
    network = network_of(method).eval()
    image = toy(method).image.requires_grad_()
    method.predict(network, toy(method).with_image(image)).probability[:, 0].sum().backward()
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())
    assert float(image.grad.abs().sum()) > 0


@every
def test_same_seed_same_start(name: str) -> None:
    method = build(name)
    first, second = network_of(method, 3).state_dict(), network_of(method, 3).state_dict()
    other = network_of(method, 4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every
def test_weights_and_statistics_travel_as_safetensors(name: str) -> None:
    method = build(name)
    network, other = network_of(method, 3).eval(), network_of(method, 4).eval()
    other.load_state_dict(load(save(network.state_dict())))
    with torch.no_grad():
        expected = method.predict(network, toy(method)).probability
        assert torch.equal(method.predict(other, toy(method)).probability, expected)


@every
def test_batches_without_any_lesion_are_fine(name: str) -> None:
    method = build(name)
    network = network_of(method)
    healthy = toy(method).select([3, 3])
    loss = method.loss(network, healthy, NOW)
    loss.total.backward()
    assert bool(loss.per_sample.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@every
def test_a_few_steps_reduce_the_loss(name: str) -> None:
    method = build(name)
    network = network_of(method).train()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        loss = method.loss(network, toy(method), NOW).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@every
def test_bfloat16_autocast_gives_float32_losses_near_the_exact_ones(name: str) -> None:
    method = build(name)
    network = network_of(method).eval()
    exact = method.loss(network, toy(method), NOW).total
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(network, toy(method), NOW)
        prediction = method.predict(network, toy(method))
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert prediction.probability.dtype == torch.float32
    assert loss.total.item() == pytest.approx(exact.item(), rel=0.05)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize("regime", REGIMES)
@every
def test_every_regime_attacks_it(name: str, regime: str) -> None:
    method = build(name)
    network = network_of(method).train()
    settings = {
        "regime": regime, "attack_fraction": 0.5, "epsilon": 0.05,
        "attack": "pgd", "attack_steps": 2,
        "selection_measure": "default", "selection_score": "mean",
    }  # fmt: skip
    result = from_config(settings)(method, network, toy(method), step=1)
    assert len(result.rows) == {"none": 0, "all": 4, "alternating": 4}.get(regime, 2)
    moved = (result.batch.image - toy(method).image).abs().flatten(1).amax(1)
    assert tuple(moved.nonzero().flatten().tolist()) == result.rows
    assert all(module.training for module in network.modules())
    method.loss(network, result.batch, NOW).total.backward()


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        (f"{name} {task}", measure)
        for name, cls in METHODS.items()
        for task in cls.tasks
        for measure in cls.uncertainties
    ],
)
def test_every_map_it_names_ranks_its_images(name: str, measure: str) -> None:
    method = build(name)
    settings = {
        "regime": "uncertain", "attack_fraction": 0.5, "attack": "fgsm", "epsilon": 0.05,
        "selection_measure": measure, "selection_score": "mean",
    }  # fmt: skip
    score = from_config(settings)(method, network_of(method), toy(method)).score
    assert score is not None
    assert score.shape == (4,)
    assert len(score.unique()) == 4


class Scaled(Method):
    """A method whose scores are multiplied by a constant, and those of one column also raised to
    an odd power: the same decisions, another certainty.
    """

    def __init__(self, inner: Method, factor: float, power: int = 1) -> None:
        self.tasks, self.uncertainties = inner.tasks, inner.uncertainties  # type: ignore[misc]
        super().__init__(inner.config, inner.manifest)
        self.inner, self.factor, self.power = inner, factor, power

    def network(self) -> torch.nn.Module:
        return self.inner.network()

    def loss(self, network: torch.nn.Module, batch: Batch, progress: Progress) -> Loss:
        return self.inner.loss(network, batch, progress)

    def predict(self, network: torch.nn.Module, batch: Batch) -> Prediction:
        said = self.inner.predict(network, batch)
        return replace(said, scores=self.scaled(said.scores))

    def scaled(self, scores: torch.Tensor) -> torch.Tensor:
        return scores * scores.abs() ** (self.power - 1) * self.factor

    def gradients(self, network: torch.nn.Module) -> dict[str, Callable[[Batch], torch.Tensor]]:
        ways = self.inner.gradients(network).items()
        return {name: lambda batch, way=way: self.scaled(way(batch)) for name, way in ways}


@every_number_of_classes
@every
def test_a_surer_network_is_no_more_robust(name: str, classes: int) -> None:
    method = build(name, classes=classes)
    if method.task.name is TaskName.SURVIVAL:
        pytest.skip("a constant that multiplies the hazards' log-odds changes who dies first")
    data = toy(method, size=8)
    network = network_of(method).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(12):
        optimiser.zero_grad()
        method.loss(network, data, NOW).total.backward()
        optimiser.step()
    network.eval()

    def performance(factor: float, epsilon: float, power: int = 1) -> float:
        """Share of right answers or mean Dice under the attack of a search."""
        scaled = Scaled(method, factor, power)
        attack = adversary("fast", scaled, network, steps=5)
        worse = attack(data, epsilon, seeds=torch.arange(len(data)))
        with torch.no_grad():
            said = scaled.predict(network, worse)
        if segments(method):
            return float(image_dice(Pixels.of(said, worse)).mean())
        decisions = method.task.decisions(said.scores, worse)
        return float(method.task.performance(decisions).mean())

    for epsilon in (0.02, 0.1):
        honest = performance(1, epsilon)
        assert performance(10, epsilon) == pytest.approx(honest, abs=0.01)
        assert performance(100, epsilon) == pytest.approx(honest, abs=0.01)
        # The mean margin of several labels or classes follows whichever is the surest of itself.
        one = method.predict(network, data).scores.shape[1] == 1
        if one or (segments(method) and not method.task.exclusive):
            assert performance(1, epsilon, power=5) == pytest.approx(honest, abs=0.02)


@every
def test_the_evaluations_attack_harms_it(name: str) -> None:
    method = build(name)
    victim = ScoreVictim(method, network_of(method).eval())
    attacked = make_attack("pgd", steps=5)(victim, toy(method), 0.05, seeds=torch.arange(4))
    with torch.no_grad():
        assert bool((victim.loss(attacked) > victim.loss(toy(method))).all())


def evaluation(method: Method, network: torch.nn.Module, parts: list[Batch]) -> Evaluation:
    victim, attack = ScoreVictim(method, network), make_attack("pgd", steps=2)
    return evaluate(
        method,
        network,
        parts,
        PLAN,
        corrupt=lambda batch, name, level: batch.with_image(batch.image / level),
        attack=lambda batch, epsilon, _: attack(victim, batch, epsilon, seeds=torch.arange(4)),
    )


@every_number_of_classes
@every
def test_evaluation_gives_every_metric_of_its_task(name: str, classes: int) -> None:
    method = build(name, classes=classes)
    network = network_of(method)
    whole = evaluation(method, network, [toy(method)])
    found, curves = whole.compute(), whole.curves()
    assert list(found) == all_names(PLAN, method.task.name)
    for metric, value in found.items():
        info = metric_info(metric)
        assert info.low <= value <= info.high, metric
    assert curves.pop("epsilon") == list(PLAN.epsilons)
    assert {f"{metric}_area" for metric in curves} == {
        n for n in found if n.endswith("_area") and "." not in n
    }
    for metric, heights in curves.items():
        assert heights[0] == found[f"clean.{metric}"]
        assert min(heights) <= found[f"{metric}_area"] <= max(heights)
    assert len(whole.reliability("attacked@0.05")["count"]) == 15
    idle = Evaluation.from_state_dict(evaluation(method, network, []).state_dict())
    idle.merge(Evaluation.from_state_dict(whole.state_dict()))
    assert idle.compute() == found


@every_shape
@every
def test_panel_shows_its_task(name: str, shape: tuple[int, ...]) -> None:
    method = build(name, shape)
    network = network_of(method)

    def darken(batch: Batch, epsilon: float, start: object) -> Batch:
        return batch.with_image(batch.image - epsilon)

    shown = panel(method, network, toy(method), darken, 0.1)
    single = {
        TaskName.CLASSIFICATION: {"label"},
        TaskName.MULTILABEL: {"labels"},
        TaskName.SURVIVAL: {"time", "event"},
    }
    truth = single.get(method.task.name, {"mask"})
    names = ("image", "probability", "uncertainty")
    assert set(shown) == {*truth, *names, *(f"{n}_attacked" for n in names)}
    assert all(len(values) == 4 for values in shown.values())
    picture = (4, *shape[-2:])
    assert shown["image"].shape == shown["image_attacked"].shape == picture
    outputs = method.task.outputs(method.manifest)
    if segments(method):
        several, masks = method.task.part != "", toy(method).mask
        assert masks is not None
        for name, columns in {"probability": outputs, "mask": masks.shape[1]}.items():
            assert shown[name].shape == ((4, columns, *shape[-2:]) if several else picture)
        assert shown["uncertainty_attacked"].shape == picture
        return
    assert shown["probability"].shape == (4, max(outputs, 2))
    assert shown["uncertainty_attacked"].shape == (4,)
    if method.task.name is TaskName.CLASSIFICATION:
        assert shown["label"].tolist() == [1, 1, 1, 0]
        assert shown["probability"].sum(1) == pytest.approx(1, abs=1e-6)
