"""A worker without its group: what it finds on the disk decides what is left to do.

test_slots.py runs workers under a real Ray, and kills them.
"""

import pytest
import torch

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.distributed.run.checkpoints import finished_card, load_state, save_state
from trustsweep.distributed.workers.board import (
    AssignedTrial,
    Begun,
    Finish,
    Standing,
    Start,
    WorkerSettings,
)
from trustsweep.distributed.workers.rank import Rank
from trustsweep.distributed.workers.training import Training
from trustsweep.distributed.workers.worker import Worker
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.evaluation import EvaluationPlan

PLAN = EvaluationPlan()
CONFIG = Space(["unet"], {"epochs": 2, "width": 4}).defaults("unet")
METRICS = {"clean.dice": 0.5}


@pytest.fixture
def settings(phantoms) -> WorkerSettings:
    return WorkerSettings(Manifest.load(phantoms), PLAN, evaluation_batch_size=8, threads=1)


@pytest.fixture
def trial(settings, tmp_path) -> AssignedTrial:
    """Both of its epochs are trained, their states kept."""
    trial = AssignedTrial("a", CONFIG, tmp_path / "a")
    training = Training(CONFIG, settings.manifest, PLAN)
    for epochs in (1, 2):
        save_state(trial.folder, training.tensors(), epochs)
    return trial


def new_worker(settings: WorkerSettings) -> Worker:
    """As in a group that has just been started."""
    return Worker(settings, Rank(), torch.device("cpu"))


def files(trial: AssignedTrial) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in trial.folder.iterdir()}


@pytest.mark.parametrize("states_left", [False, True], ids=["tidied", "states-left"])
def test_a_group_that_died_before_it_acknowledged_a_finished_model_loses_nothing(
    settings, trial, states_left
):
    """It may die after the card was written, before or after the states were dropped."""
    state = load_state(trial.folder, 2)
    first = new_worker(settings)
    assert first.do(Start(trial)) == Begun(epochs=2)
    first.do(Finish(METRICS))
    kept = files(trial)
    assert kept.keys() == {"model.safetensors", "model.json"}
    if states_left:
        save_state(trial.folder, state, 2)

    second = new_worker(settings)
    second.resume(Standing(trial, epochs=2))
    second.do(Finish(METRICS))
    assert files(trial) == kept

    other = AssignedTrial("b", CONFIG, trial.folder.with_name("b"))
    assert second.do(Start(other)) == Begun()
    second.do(Finish(METRICS))
    assert finished_card(other.folder)["metrics"] == METRICS


def test_a_group_that_died_before_the_model_was_whole_finishes_it(settings, trial):
    first = new_worker(settings)
    first.resume(Standing(trial, epochs=2))
    first.do(Finish(METRICS))
    whole = files(trial)
    half = AssignedTrial("a", CONFIG, trial.folder.with_name("half") / "a")
    save_state(half.folder, Training(CONFIG, settings.manifest, PLAN).tensors(), 2)
    (half.folder / "model.safetensors").write_bytes(whole["model.safetensors"][:100])

    second = new_worker(settings)
    second.resume(Standing(half, epochs=2))
    second.do(Finish(METRICS))
    assert files(half) == whole
