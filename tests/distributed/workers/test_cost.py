"""What a trial is said to have cost."""

import json
import os
import subprocess
import sys

import pytest
import torch

from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.streams import Samples
from trustsweep.distributed.run.folder import objectives_of
from trustsweep.distributed.statistics.front import Objective
from trustsweep.distributed.workers.cost import Cost, Meter
from trustsweep.distributed.workers.fidelity import CLEAN, FULL, Levels
from trustsweep.distributed.workers.rank import Rank
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.space import Space
from trustsweep.search_spaces.study import Fidelity, Scheduler, parse
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.metrics.catalog import COSTS

PLAN = EvaluationPlan(epsilons=(0.0, 0.01, 0.02), attack_steps=4, restarts=2)
CONFIG = Space(
    ["unet"],
    {"epochs": 4, "width": 4, "regime": "all", "attack": "pgd", "attack_steps": 2},
).defaults("unet")
#: One rung, at the end of the second epoch.
LEVELS = Levels(Fidelity(validation=0.5, evaluation_steps=0.5), Scheduler(rungs=[0.5]), 4)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(phantoms):
    return Manifest.load(phantoms), *(Samples.read(phantoms, s) for s in (Split.TRAIN, Split.VAL))


def counts(training: Training) -> tuple[float, ...]:
    metrics = training.cost_metrics()
    return tuple(metrics[f"cost.{n}"] for n in ("images", "gradients", "attack_gradients"))


def test_counts_are_those_of_the_closed_form(data):
    manifest, train, val = data
    training = Training(CONFIG, manifest, PLAN, levels=LEVELS)
    for _ in range(3):
        training.epoch(train)
    seen = 3 * len(train)
    assert counts(training) == (seen, seen, 2 * seen)
    training.evaluate(val, CLEAN, batch_size=8)
    assert counts(training) == (seen, seen, 2 * seen)
    training.evaluate(val, LEVELS.evaluation(0), batch_size=8)
    # Half of the samples and of 4 steps, each ascent with a gradient at its start, 2 restarts, 2
    # budgets above 0.
    rung = -(-len(val) // 2) * (2 + 1) * 2 * 2
    assert counts(training) == (seen, seen, 2 * seen + rung)
    training.evaluate(val, FULL, batch_size=8)
    assert counts(training) == (seen, seen, 2 * seen + rung + len(val) * (4 + 1) * 2 * 2)


def test_every_cost_of_the_catalogue_is_measured(data):
    manifest, train, _ = data
    training = Training(CONFIG, manifest, PLAN)
    trained = training.epoch(train)
    cost = training.cost_metrics()
    assert cost.keys() == COSTS.keys()
    assert 0 < trained["train.seconds"] == cost["cost.seconds"] < 60
    assert cost["cost.gpu_seconds"] == 0
    assert 50 < cost["cost.peak_memory"] < 100_000


def test_cost_goes_on_after_a_restart(data):
    manifest, train, val = data
    through = Training(CONFIG, manifest, PLAN, levels=LEVELS)
    through.epoch(train)
    state = {name: tensor.clone() for name, tensor in through.tensors().items()}
    stored = through.cost_metrics()
    through.evaluate(val, LEVELS.evaluation(0), batch_size=8)
    later = through.cost_metrics()
    resumed = [Training(CONFIG, manifest, PLAN, levels=LEVELS) for _ in range(2)]
    resumed[0].load(state, 1)
    assert resumed[0].cost_metrics() == stored
    resumed[1].load(state, 1, later)
    for training in (through, resumed[1]):
        training.epoch(train)
    assert counts(resumed[1]) == counts(through)
    assert resumed[1].cost_metrics()["cost.seconds"] > later["cost.seconds"]


def test_costs_add_up_but_for_memory():
    total = Cost(seconds=1, images=3, peak_memory=50)
    total.add(Cost(seconds=2, images=4, attack_gradients=5, peak_memory=20))
    assert total == Cost(seconds=3, images=7, attack_gradients=5, peak_memory=50)
    assert Cost.from_metrics({"clean.dice": 1.0, **total.metrics()}) == total


def test_what_ended_in_an_error_is_not_counted():
    meter = Meter(Rank(), CPU)
    with pytest.raises(ZeroDivisionError), meter.running() as spent:
        spent.images += 1 / 0
    assert meter.total == Cost()


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no resettable mark")
def test_peak_memory_is_that_of_the_trial_alone():
    def peak(megabytes: int) -> float:
        meter = Meter(Rank(), CPU)
        with meter.running():
            torch.ones(megabytes * 2**18)
        return meter.total.peak_memory

    base, high, after = peak(1), peak(300), peak(1)
    assert high == pytest.approx(base + 300, abs=30)
    assert after < high - 200


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_and_seconds_of_a_gpu_are_counted(data):
    manifest, train, _ = data
    training = Training(CONFIG, manifest, PLAN, device="cuda")
    training.epoch(train)
    cost = training.cost_metrics()
    assert cost["cost.gpu_seconds"] == cost["cost.seconds"] > 0
    assert 0 < cost["cost.peak_memory"] <= torch.cuda.get_device_properties(0).total_memory / 2**20


RANK_OF_TWO = """
import json, sys, torch, torch.distributed as dist
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.streams import Samples
from trustsweep.distributed.workers.fidelity import Levels
from trustsweep.distributed.workers.training import Training, merge_ranks
from trustsweep.distributed.workers.rank import Rank
from trustsweep.search_spaces.study import Fidelity, Scheduler
from trustsweep.trainables.evaluation import EvaluationPlan

data, store, index, config = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=2)
levels = Levels(Fidelity(data=0.5, validation=0.5), Scheduler(rungs=[0.5]), config["epochs"])
plan = EvaluationPlan(epsilons=(0.0, 0.02), attack_steps=2)
training = Training(config, Manifest.load(data), plan, rank=Rank(index, 2), levels=levels)
training.epoch(Samples.read(data, Split.TRAIN))
part = training.evaluate(Samples.read(data, Split.VAL), levels.evaluation(0), batch_size=4)
print(json.dumps([training.cost_metrics(), merge_ranks(part, training.rank).compute()]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_count_together_and_judge_the_same_part(data, phantoms, tmp_path):
    _, train, val = data
    words = [sys.executable, "-c", RANK_OF_TWO, str(phantoms), str(tmp_path / "store")]
    ranks = [
        subprocess.Popen([*words, str(i), json.dumps(CONFIG)], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    (first, judged), (second, same) = (
        json.loads(rank.communicate(timeout=300)[0]) for rank in ranks
    )
    assert judged == same
    for name in ("images", "gradients", "attack_gradients", "peak_memory"):
        assert first[f"cost.{name}"] == second[f"cost.{name}"]
    size = CONFIG["batch_size"]
    epochs = [list(train.epoch(size, seed=0, epoch=0, rank=rank, world=2)) for rank in range(2)]
    taken = train.steps(size, 2, 0.5)
    seen = sum(len(batch) for epoch in epochs for batch, _ in epoch[:taken])
    part = [len(batch) for batch in val.sweep(4, share=0.5)]
    assert sum(part) == -(-len(val) // 2)
    assert first["cost.images"] == first["cost.gradients"] == seen
    # 0.3 of two steps is one, and an ascent looks where it starts as well.
    assert first["cost.attack_gradients"] == 2 * seen + 2 * sum(part)


def test_costs_are_objectives_to_be_made_small_and_constraints():
    study = parse(
        {
            "name": "s",
            "methods": ["unet"],
            "objectives": ["dice_area", "cost.attack_gradients"],
            "constraints": ["cost.seconds <= 100"],
        },
        "s.yaml",
    )
    assert objectives_of(study) == [
        Objective("dice_area", "max"),
        Objective("cost.attack_gradients", "min"),
    ]
