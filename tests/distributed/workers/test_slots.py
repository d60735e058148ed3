"""Slots on a real Ray: figures that depend on the config alone, and workers that are killed."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import psutil
import pytest
import ray
from ray import tune

from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.streams import Mode, Samples, SampleSource, materialise
from trustsweep.distributed.run.checkpoints import finished_card, load_model
from trustsweep.distributed.workers.board import WorkerSettings
from trustsweep.distributed.workers.outcome import FAILED, FINISHED, OUTSIDE, RUNG, metrics_of
from trustsweep.distributed.workers.slot import REQUEST, Slot, SlotSettings
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.space import Space
from trustsweep.search_spaces.study import Scheduler
from trustsweep.trainables.evaluation import EvaluationPlan

pytestmark = pytest.mark.slow

PLAN = EvaluationPlan(
    epsilons=(0.0, 0.02), attack="pgd", attack_steps=2, corruptions=(("gaussian-noise", 3),)
)
CONFIG = Space(
    ["evidential-unet"],
    {
        "epochs": 3,
        "width": 8,
        "regime": "uncertain",
        "attack": "pgd",
        "attack_steps": 2,
        "corruption_fraction": 0.3,
    },
).defaults("evidential-unet")
RUNGS = [0.125, 0.25, 0.5]
OTHER = {**CONFIG, "seed": 5, "learning_rate": 0.01, "risk": "type-2"}
#: Ends long before its twelve epochs: with such steps the NLL is never again what it was at first.
PATIENT = {**CONFIG, "epochs": 12, "patience": 2, "learning_rate": 0.3, "schedule": "constant"}
BROKEN = {**CONFIG, "learning_rate": 1e30}


class Results(tune.Callback):
    """Results of each trial, by its id, and the processes of the slots."""

    def __init__(self) -> None:
        self.all: dict[str, list[dict]] = {}
        self.last: dict[str, dict] = {}
        self.slots: dict[str, int] = {}
        #: Of the run.
        self.folder = Path()

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.all.setdefault(trial.config["trial"], []).append(result)
        self.last[trial.config["trial"]] = result
        self.slots[trial.config["trial"]] = result["pid"]


def run(
    data: Path,
    folder: Path,
    configs: dict[str, dict],
    workers: int = 1,
    results: Results | None = None,
    source: SampleSource | None = None,
    stop: int | None = None,
) -> Results:
    """The configs one after the other through one slot, each for `stop` epochs at most."""
    source = source or SampleSource()
    shared = source.mode is not Mode.STREAMED
    settings = SlotSettings(
        worker=WorkerSettings(
            manifest=Manifest.load(data),
            plan=PLAN,
            evaluation_batch_size=8,
            threads=1,
            source=source,
            scheduler=Scheduler(rungs=RUNGS),
        ),
        workers=workers,
        resources_per_worker={"CPU": 1.0},
        checkpoints=folder / "checkpoints",
        storage=folder / "ray",
        patience=0.0,
    )
    results = results or Results()
    results.folder = folder
    tune.Tuner(
        tune.with_resources(
            tune.with_parameters(
                Slot,
                settings=settings,
                datasets=materialise(data, (Split.TRAIN, Split.VAL)) if shared else {},
            ),
            tune.PlacementGroupFactory([REQUEST]),
        ),
        param_space={"item": tune.grid_search(list(configs))}
        | {
            key: tune.sample_from(lambda spec, key=key: value(spec, key, configs))
            for key in ("trial", "config", "stoppable")
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder / "ray"),
            callbacks=[results],
            stop=stop and {"training_iteration": stop},
            verbose=0,
        ),
    ).fit()
    return results


def value(spec, key, configs):
    name = spec.config.item
    stoppable = name != "unstoppable" and not configs[name]["patience"]
    return {"trial": name, "config": configs[name], "stoppable": stoppable}[key]


def figures(result: dict) -> dict:
    """What must not depend on anything but the config: all but time and memory."""
    return {
        name: number
        for name, number in metrics_of(result).items()
        if not name.endswith(("seconds", "cost.peak_memory"))
    }


@pytest.fixture(scope="module")
def undisturbed(local_ray, phantoms, tmp_path_factory) -> Results:
    """The config first in a fresh slot, after others, and after one that diverged."""
    folder = tmp_path_factory.mktemp("undisturbed")
    order = {"first": CONFIG, "other": OTHER, "broken": BROKEN, "again": CONFIG}
    order["unstoppable"] = {**CONFIG, "seed": 9}
    order["patient"] = PATIENT
    return run(phantoms, folder, order)


def test_a_trials_figures_are_a_function_of_its_config_alone(undisturbed):
    first, again = (figures(undisturbed.last[name]) for name in ("first", "again"))
    assert len(first) > 50
    assert first == again
    assert first != figures(undisturbed.last["other"])


def test_a_stoppable_trial_names_its_rungs_and_is_evaluated_as_far_as_they_require(undisturbed):
    """Three epochs, judged at an eighth, a quarter and half: the first two ends."""
    ends = Scheduler(rungs=RUNGS).rung_epochs(3)
    for name in ("first", "again"):
        results = undisturbed.all[name]
        assert [r.get(RUNG) for r in results] == [ends.get(epoch) for epoch in (1, 2, 3)]
        assert [r[FINISHED] for r in results] == [False, False, True]
        assert [r["training_iteration"] for r in results] == [1, 2, 3]
        assert all("dice_area" in metrics_of(r) for r in results)
    early, _, last = undisturbed.all["unstoppable"]
    assert all(r.get(RUNG) is None for r in undisturbed.all["unstoppable"])
    assert "clean.dice" in metrics_of(early)
    assert "dice_area" not in metrics_of(early)
    assert metrics_of(last).keys() >= metrics_of(undisturbed.last["first"]).keys()


def test_patience_ends_a_trial_with_the_model_of_its_best_epoch(undisturbed, phantoms):
    results = undisturbed.all["patient"]
    assert [r["training_iteration"] for r in results] == list(range(1, len(results) + 1))
    assert [r[FINISHED] for r in results] == [*(False for _ in results[1:]), True]
    assert 2 < len(results) < PATIENT["epochs"]
    losses = {r["training_iteration"]: metrics_of(r)["clean.nll"] for r in results[:-1]}
    best = min(losses, key=losses.get)
    assert len(results) == best + PATIENT["patience"]

    assert metrics_of(results[-1])["clean.nll"] == losses[best]
    card = finished_card(undisturbed.folder / "checkpoints" / "patient")
    assert (card["epoch"], card["epochs"]) == (best, len(results))
    training = Training(PATIENT, Manifest.load(phantoms), PLAN)
    load_model(undisturbed.folder / "checkpoints" / "patient", training.model.network)
    judged = training.evaluate(Samples.read(phantoms, Split.VAL), batch_size=8).compute()
    assert judged["clean.nll"] == pytest.approx(losses[best], rel=1e-6)


def test_trials_flow_through_one_slot(undisturbed):
    assert len(set(undisturbed.slots.values())) == 1


def test_a_diverged_trial_fails_with_its_reason_and_the_slot_goes_on(undisturbed):
    broken = undisturbed.last["broken"]
    assert "diverged" in broken[FAILED]
    assert not broken.get(FINISHED)
    assert undisturbed.last["again"][FINISHED]


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The processes of Ray Train's workers below this one."""
    found = []
    for child in process.children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def kill(find: Callable[[], list[int]], folder: Path) -> Iterator[list[int]]:
    """SIGKILL the processes found, once the trial "victim" has a checkpoint; yields their ids."""
    killed: list[int] = []

    def watch() -> None:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and not killed:
            if list(folder.glob("checkpoints/victim/state-00001.safetensors")):
                for process in find():
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
            time.sleep(0.005)

    thread = Thread(target=watch)
    thread.start()
    yield killed
    thread.join()


def train_workers() -> list[int]:
    """The processes of Ray Train's workers below this one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize(("config", "name"), [(CONFIG, "first"), (PATIENT, "patient")])
def test_a_killed_worker_costs_no_trial_and_changes_no_figure(
    undisturbed, phantoms, tmp_path, config, name
):
    with kill(train_workers, tmp_path) as killed:
        results = run(phantoms, tmp_path, {"victim": config, "next": OTHER})
    assert killed
    assert figures(results.last["victim"]) == figures(undisturbed.last[name])
    assert figures(results.last["next"]) == figures(undisturbed.last["other"])
    assert (tmp_path / "checkpoints/victim/model.safetensors").is_file()


def test_a_killed_slot_costs_its_trial_alone(local_ray, phantoms, tmp_path):
    """Two workers take all CPUs: were the dead slot's not given back, the next would hang."""
    results = Results()
    longer = {**CONFIG, "epochs": 30}

    def slot_of_victim() -> list[int]:
        return [results.slots["victim"]] if "victim" in results.slots else []

    with kill(slot_of_victim, tmp_path) as killed:
        run(phantoms, tmp_path, {"victim": longer, "next": OTHER}, workers=2, results=results)
    assert killed == [results.slots["victim"]]
    assert not results.last["victim"][FINISHED]
    assert results.last["next"][FINISHED]
    assert results.slots["next"] != results.slots["victim"]


def test_a_model_that_cannot_be_saved_is_no_fault_of_its_trial(local_ray, phantoms, tmp_path):
    in_the_way = tmp_path / "checkpoints" / "unsaved" / "model.safetensors"
    (in_the_way / "something").mkdir(parents=True)
    results = run(phantoms, tmp_path, {"unsaved": CONFIG, "next": OTHER})
    assert "model.safetensors" in results.last["unsaved"][OUTSIDE]
    assert FAILED not in results.last["unsaved"]
    assert results.last["next"][FINISHED]


def test_a_trial_is_taken_up_where_another_slot_has_left_it(local_ray, phantoms, tmp_path):
    """A first slot trains two of three epochs; a finished model is not trained again at all."""
    whole = run(phantoms, tmp_path, {"whole": CONFIG}).last["whole"]
    assert len(run(phantoms, tmp_path, {"rest": CONFIG}, stop=2).all["rest"]) == 2
    again = run(phantoms, tmp_path, {"rest": CONFIG, "whole": CONFIG})
    assert [r["training_iteration"] for r in again.all["rest"]] == [2, 3]
    assert [r["training_iteration"] for r in again.all["whole"]] == [3]
    assert figures(again.last["rest"]) == figures(again.last["whole"]) == figures(whole)
    assert not list(tmp_path.glob("checkpoints/*/state-*"))


def test_patience_is_kept_where_another_slot_takes_up_a_trial(undisturbed, phantoms, tmp_path):
    """Left after the epoch before its last: what was best is not forgotten."""
    last = undisturbed.last["patient"]["training_iteration"]
    run(phantoms, tmp_path, {"patient": PATIENT}, stop=last - 1)
    again = run(phantoms, tmp_path, {"patient": PATIENT})
    assert [r["training_iteration"] for r in again.all["patient"]] == [last - 1, last]
    assert figures(again.last["patient"]) == figures(undisturbed.last["patient"])


def test_two_workers_train_and_judge_together(local_ray, phantoms, tmp_path):
    results = run(phantoms, tmp_path, {"a": CONFIG, "b": OTHER, "c": CONFIG}, workers=2)
    assert figures(results.last["a"]) == figures(results.last["c"])
    assert results.last["b"][FINISHED]
    assert metrics_of(results.last["a"])["dice_area"] > 0


@pytest.fixture(scope="module")
def streaming(phantoms, tmp_path_factory) -> Iterator[Results]:
    """The config, another and the config again, by two ranks with their streams beside them.

    Last in this file, as it takes more CPUs than the session of the tests above has.
    """
    ray.shutdown()
    ray.init(address="local", num_cpus=4, log_to_driver=False, logging_level=logging.ERROR)
    folder = tmp_path_factory.mktemp("streaming")
    configs = {"first": CONFIG, "other": OTHER, "again": CONFIG}
    yield run(phantoms, folder, configs, workers=2, source=stream(phantoms))
    ray.shutdown()


def stream(data: Path) -> SampleSource:
    return SampleSource(Mode.STREAMED, str(data), tasks=2, store_bytes=100 * 2**20)


def test_streamed_trials_give_the_same_figures_for_the_same_config(streaming):
    first, other, again = (figures(streaming.last[name]) for name in ("first", "other", "again"))
    assert len(first) > 50
    assert first == again
    assert first != other
    assert len(set(streaming.slots.values())) == 1


def test_a_killed_worker_changes_no_figure_of_a_streamed_trial(streaming, phantoms, tmp_path):
    with kill(train_workers, tmp_path) as killed:
        results = run(phantoms, tmp_path, {"victim": CONFIG}, workers=2, source=stream(phantoms))
    assert killed
    assert figures(results.last["victim"]) == figures(streaming.last["first"])
