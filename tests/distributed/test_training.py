"""One trial on one rank, without Ray."""

import pytest
import torch

from data_pipelines.schema import Manifest, Split
from data_pipelines.streams import Samples
from distributed.checkpoints import load_model, load_state, save_model, save_state
from distributed.training import Diverged, TrialTraining
from search_spaces.space import Space
from trainables.evaluation import EvaluationPlan
from trainables.regimes import attacked_rows
from trainables.registry import TRAINABLES

PLAN = EvaluationPlan(
    epsilons=(0.0, 0.02), attack_steps=2, corruptions=(("gaussian-noise", 3), ("contrast-down", 1))
)
SMALL = {"epochs": 3, "width": 4, "regime": "uncertain", "attack_steps": 1, "corruption_share": 0.5}


@pytest.fixture(scope="module")
def data(phantoms):
    return Manifest.load(phantoms), *(Samples.read(phantoms, s) for s in (Split.TRAIN, Split.VAL))


def config(trainable="evidential-unet", **more):
    return Space([trainable], {**SMALL, **more}).defaults(trainable)


def same(a: TrialTraining, b: TrialTraining) -> bool:
    mine, yours = a.tensors(), b.tensors()
    return mine.keys() == yours.keys() and all(torch.equal(mine[k], yours[k]) for k in mine)


@pytest.mark.parametrize("trainable", list(TRAINABLES))
def test_a_restart_from_a_checkpoint_changes_nothing(data, tmp_path, trainable):
    manifest, train, val = data
    through = TrialTraining(config(trainable), manifest, PLAN)
    broken = TrialTraining(config(trainable), manifest, PLAN)
    for training in (through, broken):
        training.epoch(train)
    save_state(tmp_path, broken.tensors(), 1)
    torch.randn(100)  # whatever else ran in the process since
    resumed = TrialTraining(config(trainable), manifest, PLAN)
    resumed.load(load_state(tmp_path, 1), 1)
    assert same(through, resumed)
    for training in (through, resumed):
        training.epoch(train)
    assert same(through, resumed)
    figures = [t.evaluate(val, full=True, batch_size=8).compute() for t in (through, resumed)]
    assert figures[0] == figures[1]


def test_another_seed_is_another_model(data):
    manifest, _, _ = data
    first, second = (TrialTraining(config(seed=seed), manifest, PLAN) for seed in (0, 1))
    assert not same(first, second)


def test_training_learns(data):
    manifest, train, val = data
    more = {"epochs": 8, "batch_size": 8, "learning_rate": 0.01, "regime": "none"}
    training = TrialTraining(config("unet", **more), manifest, PLAN)
    before = training.evaluate(val, full=False, batch_size=8).compute()
    losses = [training.epoch(train)["train.loss"] for _ in range(8)]
    after = training.evaluate(val, full=False, batch_size=8).compute()
    assert losses[-1] < 0.8 * losses[0]
    assert after["clean.nll"] < before["clean.nll"]


def test_the_attack_budget_is_told(data):
    manifest, train, _ = data
    chosen = config(share=0.25, attack="pgd", attack_steps=2)
    counts = TrialTraining(chosen, manifest, PLAN).epoch(train)
    sizes = [len(batch) for batch, _ in train.epoch(chosen["batch_size"], seed=0, epoch=0)]
    attacked = sum(attacked_rows(size, 0.25) for size in sizes)
    assert counts["train.attacked_share"] == pytest.approx(attacked / len(train))
    assert counts["train.attack_gradients"] == 2 * attacked
    clean = TrialTraining(config(regime="none"), manifest, PLAN).epoch(train)
    assert clean["train.attacked_share"] == clean["train.attack_gradients"] == 0


def test_a_loss_that_is_no_number_is_told_with_its_epoch(data):
    manifest, train, _ = data
    training = TrialTraining(config(learning_rate=1e30), manifest, PLAN)
    with pytest.raises(Diverged, match=r"diverged: the training loss is nan in epoch 1"):
        training.epoch(train)


def test_evaluation_leaves_the_training_as_it_was(data):
    manifest, train, val = data
    judged, plain = (TrialTraining(config(), manifest, PLAN) for _ in range(2))
    judged.epoch(train)
    judged.evaluate(val, full=True, batch_size=8)
    judged.epoch(train)
    for _ in range(2):
        plain.epoch(train)
    assert same(judged, plain)


def test_figures_do_not_depend_on_the_evaluations_batch_size(data):
    manifest, train, val = data
    training = TrialTraining(config(), manifest, PLAN)
    training.epoch(train)
    small, large = (training.evaluate(val, full=True, batch_size=n).compute() for n in (3, 50))
    for name, value in small.items():
        assert large[name] == pytest.approx(value, abs=2e-3), name


def test_a_finished_model_reads_back_and_drops_its_states(data, tmp_path):
    manifest, train, _ = data
    training = TrialTraining(config(), manifest, PLAN)
    for epochs in (1, 2, 3):
        training.epoch(train)
        save_state(tmp_path, training.tensors(), epochs)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "state-00002.safetensors",
        "state-00003.safetensors",
    ]
    save_model(tmp_path, training.network, {"id": "a"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    other = TrialTraining(config(seed=9), manifest, PLAN)
    load_model(tmp_path, other.network)
    assert all(
        torch.equal(a, b)
        for a, b in zip(training.network.parameters(), other.network.parameters(), strict=True)
    )
