"""One trial on one rank, without Ray."""

import dataclasses

import numpy as np
import pytest
import torch

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, Split, TaskName
from trustsweep.data_pipelines.streams import Samples
from trustsweep.distributed.run.checkpoints import load_model, load_state, save_model, save_state
from trustsweep.distributed.workers.fidelity import CLEAN, FULL, Level, Levels
from trustsweep.distributed.workers.model import resized
from trustsweep.distributed.workers.training import Diverged, Training
from trustsweep.search_spaces.space import Space
from trustsweep.search_spaces.study import Fidelity, Scheduler
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.fusion.base import FusionMethod
from trustsweep.trainables.regimes import attacked_rows
from trustsweep.trainables.registry import METHODS
from trustsweep.trainables.tasks import task_named

PLAN = EvaluationPlan(
    epsilons=(0.0, 0.02), attack_steps=2, corruptions=(("gaussian-noise", 3), ("contrast-down", 1))
)
SMALL = {
    "epochs": 3,
    "width": 4,
    "regime": "uncertain",
    "attack_steps": 1,
    "corruption_fraction": 0.5,
}


@pytest.fixture(scope="module")
def data(phantoms):
    return Manifest.load(phantoms), *(Samples.read(phantoms, s) for s in (Split.TRAIN, Split.VAL))


@pytest.fixture(scope="module")
def hospitals(real_data, tmp_path_factory):
    """UCI heart disease: four modalities in one table, no images."""
    out = tmp_path_factory.mktemp("data") / "heart"
    prepare(real_data / "uci_heart_disease", "uci-heart", out, size=16)
    return Manifest.load(out), *(Samples.read(out, s) for s in (Split.TRAIN, Split.VAL))


def config(method="evidential-unet", **more):
    small = {key: value for key, value in SMALL.items() if key in Space([method], {}).of(method)}
    return Space([method], {**small, **more}).defaults(method)


def same(a: Training, b: Training) -> bool:
    """In all that training goes on from; costs depend on the machine and on evaluations."""
    mine, yours = a.tensors(), b.tensors()
    names = [name for name in mine if not name.startswith("cost.")]
    return mine.keys() == yours.keys() and all(torch.equal(mine[k], yours[k]) for k in names)


def growing(rungs=(0.5,), epochs=3, **shares) -> Levels:
    return Levels(Fidelity(**shares), Scheduler(rungs=list(rungs)), epochs)


RECIPE = {"augmentation": 0.5, "flips": "left-right", "ema": 0.9, "schedule": "one-cycle"}


@pytest.mark.parametrize(
    ("method", "more"),
    [
        *((name, {}) for name in METHODS),
        ("unet", RECIPE),
        ("classifier", {**RECIPE, "optimiser": "sgd", "class_balance": "weights"}),
    ],
    ids=str,
)
def test_a_restart_from_a_checkpoint_changes_nothing(data, tmp_path, method, more):
    manifest, train, val = data
    levels = growing(data=0.5, image_size=0.5)
    prior = METHODS[method](config(method), manifest).task.read_prior(train.sweep(8))
    chosen = config(method, **more)
    through, broken = (
        Training(chosen, manifest, PLAN, levels=levels, prior=prior) for _ in range(2)
    )
    for training in (through, broken):
        training.epoch(train)
    save_state(tmp_path, broken.tensors(), 1)
    torch.randn(100)  # whatever else ran in the process since
    resumed = Training(chosen, manifest, PLAN, levels=levels, prior=prior)
    resumed.load(load_state(tmp_path, 1), 1)
    assert same(through, resumed)
    for training in (through, resumed):
        training.epoch(train)
    assert same(through, resumed)
    figures = [t.evaluate(val, batch_size=8).compute() for t in (through, resumed)]
    assert figures[0] == figures[1]


def test_another_seed_is_another_model(data):
    manifest, _, _ = data
    first, second = (Training(config(seed=seed), manifest, PLAN) for seed in (0, 1))
    assert not same(first, second)


def test_training_learns(data):
    manifest, train, val = data
    more = {"epochs": 8, "batch_size": 8, "learning_rate": 0.01, "regime": "none"}
    training = Training(config("unet", **more), manifest, PLAN)
    before = training.evaluate(val, CLEAN, batch_size=8).compute()
    losses = [training.epoch(train)["train.loss"] for _ in range(8)]
    after = training.evaluate(val, CLEAN, batch_size=8).compute()
    assert losses[-1] < 0.8 * losses[0]
    assert after["clean.nll"] < before["clean.nll"]


def test_the_mean_of_the_weights_is_judged_and_kept(data, tmp_path):
    manifest, train, val = data
    plain, mean = (Training(config(ema=decay), manifest, PLAN) for decay in (0.0, 0.99))
    assert plain.model.network is plain.network
    for training in (plain, mean):
        training.epoch(train)
    # The same training; what is judged is another network.
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.network.parameters(), mean.network.parameters(), strict=True)
    )
    figures = [t.evaluate(val, batch_size=8).compute() for t in (plain, mean)]
    assert figures[0]["clean.nll"] != figures[1]["clean.nll"]
    assert figures[0]["attacked.nll"] != figures[1]["attacked.nll"]
    save_model(tmp_path, mean.model.network, {"id": "a"})
    judged = Training(config(ema=0.99), manifest, PLAN)
    load_model(tmp_path, judged.model.network)
    assert judged.evaluate(val, batch_size=8).compute() == figures[1]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_may_start_from_the_weights_of_a_file(data, tmp_path, ema):
    manifest, train, _ = data
    first = Training(config("classifier", depth=2), manifest, PLAN)
    first.epoch(train)
    save_model(tmp_path, first.model.network, {"id": "a"})
    file = str(tmp_path / "model.safetensors")
    # Next to no rate: what training begins with is what it ends with.
    still = {"depth": 2, "learning_rate": 1e-12, "weight_decay": 0.0, "ema": ema, "seed": 7}
    second = Training(config("classifier", encoder=file, **still), manifest, PLAN)
    assert not same_weights(second.model.network, first.model.network)
    second.epoch(train)
    assert same_weights(second.model.network, first.model.network)
    # Once begun it needs the file no more.
    resumed = Training(
        config("classifier", encoder=str(tmp_path / "gone"), **still), manifest, PLAN
    )
    resumed.load(second.tensors(), 1)
    resumed.epoch(train)
    assert same_weights(resumed.model.network, first.model.network)


def same_weights(a, b):
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.allclose(mine, yours, atol=1e-6) for mine, yours in pairs)


def test_augmentation_reaches_the_training_and_not_the_evaluation(data):
    manifest, train, val = data
    plain, other = (Training(config(augmentation=s), manifest, PLAN) for s in (0.0, 0.5))
    figures = [t.evaluate(val, batch_size=8).compute() for t in (plain, other)]
    assert figures[0] == figures[1]
    for training in (plain, other):
        training.epoch(train)
    assert not same(plain, other)


def test_the_attack_budget_is_told(data):
    manifest, train, _ = data
    chosen = config(attack_fraction=0.25, attack="pgd", attack_steps=2)
    counts = Training(chosen, manifest, PLAN).epoch(train)
    sizes = [len(batch) for batch, _ in train.epoch(chosen["batch_size"], seed=0, epoch=0)]
    attacked = sum(attacked_rows(size, 0.25) for size in sizes)
    assert counts["train.attacked_share"] == pytest.approx(attacked / len(train))
    assert counts["train.attack_gradients"] == 2 * attacked
    clean = Training(config(regime="none"), manifest, PLAN).epoch(train)
    assert clean["train.attacked_share"] == clean["train.attack_gradients"] == 0


def test_a_loss_that_is_no_number_is_told_with_its_epoch(data):
    manifest, train, _ = data
    training = Training(config(learning_rate=1e30), manifest, PLAN)
    with pytest.raises(Diverged, match=r"diverged: the training loss is nan in epoch 1"):
        training.epoch(train)


def test_evaluation_leaves_the_training_as_it_was(data):
    manifest, train, val = data
    judged, plain = (Training(config(), manifest, PLAN) for _ in range(2))
    judged.epoch(train)
    judged.evaluate(val, batch_size=8)
    judged.epoch(train)
    for _ in range(2):
        plain.epoch(train)
    assert same(judged, plain)


def test_figures_do_not_depend_on_the_evaluations_batch_size(data):
    manifest, train, val = data
    training = Training(config(), manifest, PLAN)
    training.epoch(train)
    small, large = (training.evaluate(val, batch_size=n).compute() for n in (3, 50))
    for name, value in small.items():
        assert large[name] == pytest.approx(value, abs=2e-3), name


def test_a_finished_model_reads_back_and_drops_its_states(data, tmp_path):
    manifest, train, _ = data
    training = Training(config(), manifest, PLAN)
    for epochs in (1, 2, 3):
        training.epoch(train)
        save_state(tmp_path, training.tensors(), epochs)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "state-00002.safetensors",
        "state-00003.safetensors",
    ]
    save_model(tmp_path, training.model.network, {"id": "a"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    other = Training(config(seed=9), manifest, PLAN)
    load_model(tmp_path, other.network)
    assert all(
        torch.equal(a, b)
        for a, b in zip(training.network.parameters(), other.network.parameters(), strict=True)
    )


def figures(training, data, levels):
    _, train, val = data
    trained = [training.epoch(train) for _ in range(training.config["epochs"])]
    for epoch in trained:
        del epoch["train.seconds"]
    judged = training.evaluate(val, levels.evaluation(0), batch_size=8).compute()
    return trained, judged


def test_shares_of_one_change_no_bit(data):
    levels = growing(
        rungs=(0.3, 0.6), parameters={"attack_steps": 1.0}, validation=1, evaluation_steps=1
    )
    plain = Training(config(), data[0], PLAN)
    scaled = Training(config(), data[0], PLAN, levels=levels)
    assert figures(plain, data, growing(rungs=())) == figures(scaled, data, levels)
    assert same(plain, scaled)


def test_a_share_of_the_data_is_the_first_steps_of_each_epochs_own_order(data):
    manifest, train, _ = data
    steps = train.steps(8, 1)
    levels = growing(rungs=(0.6,), data=0.4)
    training = Training(config(batch_size=8), manifest, PLAN, levels=levels)
    images = []
    for _ in range(3):
        before = training.cost_metrics()["cost.images"]
        training.epoch(train)
        images.append(training.cost_metrics()["cost.images"] - before)
    taken = [
        sum(len(batch) for batch, _ in list(train.epoch(8, seed=0, epoch=epoch))[:count])
        for epoch, count in enumerate((-(-4 * steps // 10), -(-4 * steps // 10), steps))
    ]
    assert images == taken


def test_parameters_grow_from_rung_to_rung(data):
    manifest, train, _ = data
    levels = growing(rungs=(0.25, 0.5), epochs=4, parameters={"attack_steps": 0.25})
    chosen = config(epochs=4, attack="pgd", attack_steps=4, regime="random")
    training = Training(chosen, manifest, PLAN, levels=levels)
    gradients = [training.epoch(train)["train.attack_gradients"] for _ in range(4)]
    assert [g / gradients[0] for g in gradients] == [1, 2, 4, 4]


def test_small_images_train_and_are_judged_at_their_rung(data):
    manifest, train, val = data
    levels = growing(image_size=0.5, data=0.5)
    prior = task_named(TaskName.SEGMENTATION).read_prior(train.sweep(8))
    training = Training(config(), manifest, PLAN, levels=levels, prior=prior)
    training.epoch(train)
    for level in (levels.evaluation(0), CLEAN, FULL):
        evaluation = training.evaluate(val, level, batch_size=8)
        values = evaluation.compute()
        assert 0 < values["clean.nll"] < 2
        assert ("dice_area" in values) is not level.clean
        # Skills compare with what ignoring the image gives on these very samples at this size.
        judged = task_named(TaskName.SEGMENTATION).trivial(prior)
        for batch in val.sweep(8, share=level.validation):
            judged.update(resized(batch, level))
        figures = judged.metrics()
        assert evaluation.trivial() == figures
        best = max(row["dice_lesion"] for row in figures.values())
        expected = (values["clean.dice_lesion"] - best) / (1 - best)
        assert values["skill.clean.dice_lesion"] == pytest.approx(expected)


def test_the_budget_of_l2_shrinks_with_the_images_at_a_rung(data):
    manifest, _, val = data
    # No two images are farther apart, and a ball beyond that is refused: at half the size, half.
    diagonal = float(np.sqrt(np.prod(manifest.image_shape)))
    plan = dataclasses.replace(PLAN, epsilons=(0.0, diagonal), norm="l2", corruptions=())
    training = Training(config(), manifest, plan, levels=growing(image_size=0.5))
    for level in (training.levels.evaluation(0), FULL):
        values = training.evaluate(val, level, batch_size=8).compute()
        assert 0 <= values[f"attacked@{diagonal:g}.dice"] <= values["clean.dice"]


@pytest.mark.parametrize(
    "method",
    [name for name, method in METHODS.items() if issubclass(method, FusionMethod)],
)
def test_data_without_images_train_and_are_judged(hospitals, method):
    manifest, train, val = hospitals
    plan = EvaluationPlan(
        corruptions=(("mixed-quality", 5), ("modality-drop", 5)), suite="clinical"
    )
    levels = growing(rungs=(0.5,), epochs=2, data=0.5, image_size=0.5)
    more = {"epochs": 2, "batch_size": 32, "regime": "none"}
    chosen = config(method, **more, modality_corruption=0.5, p_miss=0.3)
    training = Training(chosen, manifest, plan, levels=levels)
    losses = [training.epoch(train)["train.loss"] for _ in range(2)]
    assert 0 < losses[1] < losses[0]
    for level in (levels.evaluation(0), FULL):
        values = training.evaluate(val, level, batch_size=64).compute()
        assert values["clean.auroc"] > 0.6
        assert values["corrupted.nll"] < 2


def test_a_classifier_of_images_refuses_data_without_any(hospitals):
    with pytest.raises(UserError, match="no images here"):
        Training(config("classifier", depth=1), hospitals[0], PLAN)


@pytest.mark.parametrize("share", [{"modality_corruption": 0.5}, {"p_miss": 0.5}], ids=str)
def test_corruption_of_modalities_reaches_the_training(data, share):
    manifest, train, _ = data
    plain, worse = (Training(config(**more), manifest, PLAN) for more in ({}, share))
    for training in (plain, worse):
        training.epoch(train)
    assert not same(plain, worse)


@pytest.mark.parametrize("dims", [2, 3])
def test_resizing_keeps_what_images_and_masks_mean(dims):
    shape = (2, 3, *(32, 40, 48)[:dims])
    ramp = torch.linspace(0, 1, shape[-1]).expand(shape).clone()
    mask = (ramp[:, :1] > 0.5).float()
    batch = Batch(
        sample_id=("a", "b"), image=ramp, mask=mask, more_images={"other": torch.rand(2, 1, 8, 64)}
    )
    small = resized(batch, Level(image_size=0.5))
    # 20 lies between two multiples; an axis of 8 cannot get smaller.
    size = (16, 16, 32) if dims == 3 else (16, 16)
    assert small.image.shape == (2, 3, *size)
    assert small.mask.shape == (2, 1, *size)
    assert small.more_images["other"].shape == (2, 1, 8, 32)
    assert set(small.mask.unique().tolist()) == {0.0, 1.0}
    assert small.mask.mean() == pytest.approx(0.5, abs=1e-6)
    assert small.image.mean() == pytest.approx(0.5, abs=1e-3)
    assert 0 <= small.image.min() < 0.05
    assert 0.95 < small.image.max() <= 1
    assert resized(batch, FULL) is batch
    table = dataclasses.replace(batch, image=torch.zeros(2, 0), mask=None, more_images={})
    assert resized(table, Level(image_size=0.5)).image.shape == (2, 0)
