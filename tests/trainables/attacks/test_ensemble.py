"""Ensembles of attacks: no weaker than their members, and no more robust for being surer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Feature, Kind, Manifest, Modality, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.attacks import ScoreVictim, adversary, make_attack
from trustsweep.trainables.attacks import ensemble as ensemble_module
from trustsweep.trainables.attacks.ensemble import Ensemble, full_steps, make_ensemble, settings
from trustsweep.trainables.attacks.losses import LOSSES
from trustsweep.trainables.attacks.masking import SIGNS, Effort, masking
from trustsweep.trainables.attacks.victims import TrainingVictim
from trustsweep.trainables.contract import Loss, Method, Prediction, Progress
from trustsweep.trainables.registry import FAST, FULL, METHODS
from trustsweep.trainables.tasks import task_named

torch.set_num_threads(1)
NOW = Progress(3, 6)
SEEDS = torch.arange(12)


SEGMENTATION = task_named(TaskName.SEGMENTATION)


def manifest(classes: int = 2) -> Manifest:
    return Manifest(
        name="toy",
        tasks=tuple(TaskName),
        image_shape=(1, 16, 16),
        image_scale=1.0,
        classes=("a", "b", "c", "d")[:classes],
        mean=(0.4,),
        std=(0.2,),
        split_counts={"train": 12},
        columns={},
        fingerprint="0",
    )


def squares(size: int = 12, classes: int = 2) -> Batch:
    """Bright squares on noise, one quadrant for each class; the last image has none."""
    generator = torch.Generator().manual_seed(2)
    image = 0.4 * torch.rand((size, 1, 16, 16), generator=generator)
    mask, label = torch.zeros(size, 1, 16, 16), torch.zeros(size, dtype=torch.long)
    for row in range(size - 1):
        label[row] = row % classes
        top, left = 8 * int(label[row] // 2), 8 * int(label[row] % 2)
        mask[row, 0, top + 1 : top + 7, left + 1 : left + 7] = 1
    image = (image + 0.25 * mask).clamp(0, 1)
    return Batch(sample_id=tuple(map(str, range(size))), image=image, mask=mask, label=label)


def trained(name: str, classes: int = 2, steps: int = 40) -> tuple[Method, nn.Module, Batch]:
    config = {**Space([name], {}).defaults(name), "width": 4}
    method: Method = METHODS[name](config, manifest(classes))
    data = squares(classes=classes)
    torch.manual_seed(0)
    network = method.network().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        method.loss(network, data, NOW).total.backward()
        optimiser.step()
    return method, network.eval(), data


@pytest.fixture(scope="module")
def unet() -> tuple[Method, nn.Module, Batch]:
    return trained("evidential-unet")


@pytest.fixture(scope="module")
def classifier() -> tuple[Method, nn.Module, Batch]:
    return trained("classifier", classes=4)


def done(setting: tuple[Method, nn.Module, Batch], worse: Batch) -> Tensor:
    method, network, _ = setting
    with torch.no_grad():
        return ScoreVictim(method, network).look(worse)[1]


@pytest.mark.parametrize("kind", ["unet", "classifier"])
@pytest.mark.parametrize("epsilon", [0.02, 0.08])
def test_is_no_weaker_on_any_image_than_each_of_its_members(
    kind: str, epsilon: float, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few steps each of them takes."""
    monkeypatch.setattr(ensemble_module, "STEPS", {16**2: 8})
    setting = request.getfixturevalue(kind)
    method, network, data = setting
    ensemble = make_ensemble(FULL, method, network, steps=3)
    assert isinstance(ensemble, Ensemble)
    worst = done(setting, ensemble(data, epsilon, SEEDS))
    assert bool((worst >= done(setting, data)).all())
    for member in ensemble.members:
        if member.onward:  # begins at what the others found
            continue
        alone = done(setting, member.attack(member.victim, data, epsilon, seeds=SEEDS))
        if method.task.name is TaskName.SEGMENTATION:
            assert bool((worst >= alone - 1e-6).all()), member.name
        else:
            assert not bool(((alone > 0) & (worst <= 0)).any()), member.name


@pytest.mark.parametrize("kind", ["unet", "classifier"])
def test_stays_in_the_ball_and_goes_on_from_a_smaller_one(
    kind: str, request: pytest.FixtureRequest
) -> None:
    setting = request.getfixturevalue(kind)
    method, network, data = setting
    attack = adversary(FAST, method, network, steps=4)
    worse, harms = None, [done(setting, data)]
    for epsilon in (0.01, 0.03, 0.09):
        found = attack(data, epsilon, SEEDS, worse)
        worse = found.image
        assert float((worse - data.image).abs().max()) <= epsilon + 1e-6
        assert 0 <= float(worse.min()) <= float(worse.max()) <= 1
        harms.append(done(setting, found))
    # More room never does less harm, image by image.
    assert all(bool((more >= less).all()) for less, more in pairwise(harms))


def test_gradients_are_counted(unet: tuple) -> None:
    method, network, data = unet
    attack = adversary(FAST, method, network, steps=4)
    attack(data, 0.02, SEEDS)
    assert attack.gradients == 5 * len(data)
    single = adversary("pgd", method, network, steps=4)
    single(data, 0.02, SEEDS)
    assert single.gradients == 4 * len(data)


def test_settings_name_every_member(classifier: tuple) -> None:
    method, network, _ = classifier
    told = settings(make_ensemble(FULL, method, network, steps=3))
    assert {"apgd-margin", "apgd-cross-entropy", "apgd-dlr", "apgd-training", "square"} <= {
        member["name"] for member in told
    }
    steps = full_steps(method.manifest.image_shape)
    assert {m["steps"] for m in told if m["name"] == "apgd-dlr"} == {steps}


def test_the_training_loss_is_that_of_the_end_of_training(unet: tuple) -> None:
    method, network, _ = unet
    longer = type(method)({**method.config, "epochs": 20}, method.manifest)
    members = make_ensemble(FULL, longer, network, steps=1).members
    (own,) = [m.victim for m in members if isinstance(m.victim, TrainingVictim)]
    assert own.progress == Progress(20, 20)


def test_a_model_that_breaks_under_attack_is_not_robust(classifier: tuple) -> None:
    method, network, data = classifier
    clean = method.predict(network, data).scores.argmax(1)

    class Breaking(Masked):
        def predict(self, network: nn.Module, batch: Batch) -> Prediction:
            said = self.inner.predict(network, batch)
            turned = said.scores.argmax(1) != clean[[int(name) for name in batch.sample_id]]
            scores = said.scores.masked_fill(turned.unsqueeze(1), torch.nan)
            return Prediction(scores, said.uncertainty)

    breaking = Breaking(method, torch.clone)
    worse = adversary(FAST, breaking, network, steps=7)(data, 0.2, SEEDS)
    assert bool(breaking.predict(network, worse).scores.isnan().any())


def test_an_unknown_ensemble_is_refused(unet: tuple) -> None:
    with pytest.raises(UserError, match="no ensemble"):
        make_ensemble("strong", *unet[:2], steps=3)


def test_a_gate_is_attacked_with_and_without_its_gradient() -> None:
    config = {**Space(["draf"], {}).defaults("draf"), "width": 4}
    for through, other in ((True, "weights held"), (False, "through the weights")):
        draf = METHODS["draf"]({**config, "through_uncertainty": through}, manifest())
        torch.manual_seed(0)
        network, data = draf.network().eval(), squares()
        ways = draf.gradients(network)
        assert list(ways) == ["own", other]
        torch.testing.assert_close(ways["own"](data), ways[other](data))
        names = [m["name"] for m in settings(adversary(FAST, draf, network, steps=3))]
        assert names == ["apgd-margin", f"apgd-margin ({other})"]
        assert network.through is through


# Losses and harm

#: The loss of survival is of hazards, and of no other decisions.
OF_DECISIONS = [name for name in LOSSES if name != "survival-risk"]


@pytest.mark.parametrize("name", [n for n in OF_DECISIONS if n != "cross-entropy"])
@pytest.mark.parametrize("columns", [1, 4])
def test_sure_scores_have_a_gradient_of_the_same_direction(name: str, columns: int) -> None:
    """Of probabilities in float32 there would be none: all are 0 or 1 at a hundredfold."""
    if "dice" in name and columns > 1:
        pytest.skip("of segmentations")
    torch.manual_seed(3)
    scores = 4 * torch.randn(6, columns, *([8, 8] if columns == 1 else []))
    mask = (torch.rand(6, 1, 8, 8) > 0.5).float()
    batch = Batch(sample_id=tuple("abcdef"), image=mask, mask=mask, label=torch.arange(6) % columns)
    task = TaskName.SEGMENTATION if columns == 1 else TaskName.CLASSIFICATION
    signs = []
    for factor in (1.0, 100.0):
        at = (scores * factor).requires_grad_()
        (gradient,) = torch.autograd.grad(
            LOSSES[name](task_named(task).decisions(at, batch)).sum(), at
        )
        assert bool(gradient.isfinite().all())
        signs.append(gradient.sign())
    assert bool(signs[0].any())
    assert torch.equal(*signs)


def test_cross_entropy_keeps_a_gradient_where_float32_rounds_the_probability() -> None:
    for margin in (20.0, 80.0, 500.0):
        score = torch.tensor([[margin]], requires_grad=True)
        batch = Batch(sample_id=("a",), image=torch.zeros(1, 1), label=torch.ones(1).long())
        loss = LOSSES["cross-entropy"](task_named(TaskName.CLASSIFICATION).decisions(score, batch))
        (gradient,) = torch.autograd.grad(loss.sum(), score)
        assert float(score.detach().sigmoid()) == 1 or margin < 17
        assert float(gradient) < 0


@pytest.mark.parametrize("name", ["dice", "soft-dice"])
def test_dice_keeps_a_gradient_where_a_lesion_is_surely_found(name: str) -> None:
    """σ(z) is 1 in float32 from z = 17 on, and its gradient exactly 0; that of σ(−z) is not."""
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    scores = torch.where(mask > 0, 14.0, -2.0).requires_grad_()
    batch = Batch(sample_id=("a",), image=mask, mask=mask)
    loss = LOSSES[name](SEGMENTATION.decisions(scores, batch))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert bool((gradient[mask > 0] < 0).all())
    assert bool((gradient[mask == 0] > 0).all())


def test_dice_points_the_same_way_whatever_power_the_scores_are_raised_to() -> None:
    torch.manual_seed(4)
    image = torch.randn(3, 1, 8, 8)
    mask = (torch.rand(3, 1, 8, 8) > 0.7).float()
    mask[2] = 0  # no lesion: the pixel nearest to an alarm has a gradient as well
    batch = Batch(sample_id=("a", "b", "c"), image=mask, mask=mask)
    mixing = torch.randn(64, 64)
    found = []
    for power in (1, 3, 9):
        at = image.clone().requires_grad_()
        scores = (at.flatten(1) @ mixing).view_as(at)
        scores = scores * scores.abs() ** (power - 1)
        loss = LOSSES["dice"](SEGMENTATION.decisions(scores, batch))
        assert torch.allclose(
            loss,
            SEGMENTATION.harm(SEGMENTATION.decisions(scores, batch)),
        )
        (gradient,) = torch.autograd.grad(loss.sum(), at)
        found.append(gradient / gradient.flatten(1).norm(dim=1).view(3, 1, 1, 1))
    assert bool(found[0].flatten(1).any(dim=1).all())
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[2], found[0], atol=1e-4, rtol=0)


def test_harm_knows_infinite_scores() -> None:
    """They stand for probabilities of 0 and 1; one wrong beside one right is no NaN."""
    scores = torch.tensor([[[[torch.inf, -torch.inf], [-torch.inf, 1.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    batch = Batch(sample_id=("a",), image=mask, mask=mask)
    found = SEGMENTATION.harm(SEGMENTATION.decisions(scores, batch))
    torch.testing.assert_close(found, torch.tensor([0.5]).double(), atol=0.07, rtol=0)
    broken = SEGMENTATION.decisions(scores.index_fill(3, torch.tensor([1]), torch.nan), batch)
    assert SEGMENTATION.harm(broken).tolist() == [torch.inf]


def test_harm_is_the_measure_itself() -> None:
    scores = torch.tensor([[[[3.0, -1.0], [2.0, -4.0]]], [[[-1.0, -1.0], [-2.0, -4.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    batch = Batch(sample_id=("a", "b"), image=mask, mask=mask)
    found = SEGMENTATION.harm(SEGMENTATION.decisions(scores, batch))
    # One of two lesion pixels found, one false alarm: Dice ½. Nothing in nothing: 1.
    torch.testing.assert_close(found, torch.tensor([0.5, 0.0]).double(), atol=0.07, rtol=0)
    task = task_named(TaskName.CLASSIFICATION)
    labelled = Batch(sample_id=("a",), image=mask[:1], label=torch.tensor([2]))
    assert task.harm(task.decisions(torch.tensor([[1.0, 4.0, 2.0]]), labelled)).tolist() == [2.0]


def drawn(size: int = 5) -> tuple[Tensor, Tensor]:
    """Log-odds (B, 1, 8, 8), and masks of which one is empty."""
    torch.manual_seed(5)
    mask = (torch.rand(size, 1, 8, 8) > 0.6).float()
    mask[1] = 0
    return 3 * torch.randn(size, 1, 8, 8), mask


def raised(task: TaskName, name: str, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A loss (or "harm") and, of what has one, its gradient."""
    at = scores.clone().requires_grad_()
    batch = Batch(sample_id=tuple(map(str, range(len(mask)))), image=mask[:, :1], mask=mask)
    decisions = task_named(task).decisions(at, batch)
    if name == "harm":
        return task_named(task).harm(decisions), torch.zeros_like(at)
    loss = LOSSES[name](decisions)
    (gradient,) = torch.autograd.grad(loss.sum(), at)
    return loss.detach(), gradient


@pytest.mark.parametrize("name", [*OF_DECISIONS, "harm"])
def test_two_classes_are_attacked_like_a_lesion(name: str) -> None:
    scores, mask = drawn()
    loss, gradient = raised(TaskName.SEGMENTATION, name, scores, mask)
    pair = torch.cat([torch.zeros_like(scores), scores], dim=1)
    other, steps = raised(TaskName.MULTICLASS_SEGMENTATION, name, pair, mask)
    torch.testing.assert_close(other, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(steps[:, 1:], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*OF_DECISIONS, "harm"])
def test_equal_regions_are_attacked_like_one(name: str) -> None:
    scores, mask = drawn()
    loss, gradient = raised(TaskName.SEGMENTATION, name, scores, mask)
    twice = torch.cat([scores, 100 * scores], dim=1)
    other, steps = raised(TaskName.REGION_SEGMENTATION, name, twice, torch.cat([mask, mask], 1))
    if name in ("cross-entropy", "margin", "dlr"):  # not in units of a region's own margins
        return
    # Which margin is the least decides between equals, and may be that of the other region.
    close = 1e-3 if name in ("harm", "dice") else 1e-5
    torch.testing.assert_close(other, loss, rtol=1e-5, atol=close)
    for region, factor in enumerate((1, 100)):
        own = 2 * factor * steps[:, region : region + 1]
        torch.testing.assert_close(own, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("task", [TaskName.MULTICLASS_SEGMENTATION, TaskName.REGION_SEGMENTATION])
@pytest.mark.parametrize("name", [n for n in OF_DECISIONS if n != "cross-entropy"])
def test_sure_scores_of_several_have_a_gradient_of_the_same_direction(
    name: str, task: TaskName
) -> None:
    torch.manual_seed(3)
    scores = 4 * torch.randn(6, 3, 8, 8)
    mask = torch.randint(0, 3, (6, 1, 8, 8)).float()
    if task is TaskName.REGION_SEGMENTATION:
        mask = (torch.rand(6, 3, 8, 8) > 0.5).float()
    signs = [raised(task, name, factor * scores, mask)[1].sign() for factor in (1.0, 100.0)]
    assert bool(signs[0].any())
    assert torch.equal(*signs)


def test_harm_is_the_mean_over_what_the_image_has() -> None:
    mask = torch.zeros(3, 1, 4, 4)
    mask[0, 0, 0], mask[1, 0, 0], mask[1, 0, 1] = 1, 1, 2
    label = mask.clone()
    label[0, 0, 0, :2] = 0  # half of class 1 is missed: Dice 2/3
    label[0, 0, 3, 3] = 3  # and one that the image has not is seen
    label[1, 0, 1] = 3  # class 2 is taken for class 3
    label[2, 0, 0, 0] = 2  # an alarm
    scores = 5 * torch.nn.functional.one_hot(label[:, 0].long(), 4).movedim(-1, 1).float()
    harm = raised(TaskName.MULTICLASS_SEGMENTATION, "harm", scores, mask)[0]
    expected = torch.tensor([1 / 3, 0.5, 1 / 3]).double()
    torch.testing.assert_close(harm, expected, atol=1e-3, rtol=0)
    batch = Batch(sample_id=("a", "b", "c"), image=mask, mask=mask)
    task = task_named(TaskName.MULTICLASS_SEGMENTATION)
    right = task.performance(task.decisions(scores, batch))
    torch.testing.assert_close(right, 1 - expected, atol=1e-3, rtol=0)
    assert task.counted(batch).tolist() == [True, True, False]
    # The best that one class everywhere can reach: class 1, in a quarter of both images.
    area = 2 * 0.25 / 1.25
    assert task.chance(batch, 4, task.counted(batch)) == pytest.approx((area + area / 2) / 2)


# Signs of masking


class Masked(Method):
    """A method that hides its gradient in one way or another, over an honest one."""

    def __init__(self, inner: Method, hide: Callable[[Tensor], Tensor]) -> None:
        self.tasks, self.uncertainties = inner.tasks, inner.uncertainties  # type: ignore[misc]
        super().__init__(inner.config, inner.manifest)
        self.inner, self.hide = inner, hide

    def network(self) -> nn.Module:
        return self.inner.network()

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        return self.inner.loss(network, batch, progress)

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        said = self.inner.predict(network, batch)
        return Prediction(self.hide(said.scores), said.uncertainty)


def quantised(scores: Tensor) -> Tensor:
    """Steps without a slope."""
    return (scores * 4).round() / 4


def saturated(scores: Tensor) -> Tensor:
    """Of probabilities that float32 has rounded: a hundredfold sureness, lost on the way back."""
    return (scores * 100).softmax(1).log()


@pytest.mark.parametrize("kind", ["unet", "classifier"])
def test_an_honest_undefended_model_has_no_sign(kind: str, request: pytest.FixtureRequest) -> None:
    method, network, data = request.getfixturevalue(kind)
    found = masking(method, network, data, 0.06, seeds=SEEDS, effort=Effort(15, 60))
    assert found.signs == ()
    assert found.figures["many_steps"] < found.figures["clean"]
    assert found.samples == len(data)


@pytest.mark.parametrize("kind", ["unet", "classifier"])
def test_samples_may_pass_the_network_a_few_at_a_time(
    kind: str, request: pytest.FixtureRequest
) -> None:
    method, network, data = request.getfixturevalue(kind)
    look = partial(masking, method, network, data, 0.06, seeds=SEEDS, effort=Effort(3, 10))
    assert look(batch_size=5).figures == pytest.approx(look().figures, abs=1e-3)


def test_an_attack_without_gradients_keeps_to_the_ball_of_l2(unet: tuple) -> None:
    """ε of L2 is the length of a whole image's change; as one of L∞ it would destroy any model."""
    method, network, data = unet
    found = masking(method, network, data, 0.5, seeds=SEEDS, norm="l2", effort=Effort(10, 40))
    assert "black-box" not in found.signs
    assert found.figures["many_steps"] < found.figures["black_box"] <= found.figures["clean"]


def test_an_image_that_is_absent_hides_no_gradient() -> None:
    config = {**Space(["draf"], {}).defaults("draf"), "width": 4}
    both = dataclasses.replace(
        manifest(),
        tabular=(Feature(name="age"), Feature(name="height")),
        modalities=(
            Modality(name="x-ray", kind=Kind.IMAGE, column="image"),
            Modality(name="table", kind=Kind.TABULAR, column="tabular"),
        ),
    )
    draf = METHODS["draf"](config, both)
    torch.manual_seed(0)
    network = draf.network().eval()
    present = torch.ones(12, 2)
    present[::2, 0] = 0
    data = dataclasses.replace(squares(), tabular=torch.randn(12, 2), present=present)
    found = masking(draf, network, data, 0.1, seeds=SEEDS, effort=Effort(2, 2))
    assert (found.samples, found.figures["zero_gradient"]) == (6, 0)
    assert not {"zero-gradient", "no-ascent"} & set(found.signs)


@pytest.mark.parametrize("hide", [quantised, saturated])
def test_hidden_gradients_show(hide: Callable, classifier: tuple) -> None:
    method, network, data = classifier
    masked = Masked(method, hide)
    found = masking(masked, network, data, 0.2, seeds=SEEDS, effort=Effort(20, 300))
    assert {"zero-gradient", "no-ascent", "large-radius"} <= set(found.signs)
    assert found.as_json()["signs"] == {name: SIGNS[name] for name in found.signs}


def test_an_attack_without_gradients_gives_them_away(classifier: tuple) -> None:
    method, network, data = classifier
    found = masking(
        Masked(method, quantised), network, data, 0.3, seeds=SEEDS, effort=Effort(20, 300)
    )
    assert "black-box" in found.signs


def test_a_single_attack_is_to_compare_with(unet: tuple) -> None:
    method, network, data = unet
    attack = adversary("pgd", method, network, steps=3)
    expected = make_attack("pgd", steps=3)(ScoreVictim(method, network), data, 0.02, seeds=SEEDS)
    assert torch.equal(attack(data, 0.02, SEEDS).image, expected.image)
