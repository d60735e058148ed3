"""A model apart from its training: loaded from a run folder, it predicts and is attacked."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.distributed.run_folders import MANIFEST, study_of, write_run
from trustsweep import Model, Task
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch
from trustsweep.distributed.run.checkpoints import save_model
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.contract import Prediction

SMALL = dataclasses.replace(MANIFEST, image_shape=(1, 16, 16))
IMAGES = torch.rand(3, *SMALL.image_shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """A run of three trials with the models of two, and the one of trial "a1"."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = Space(["unet"], {"epochs": 1, "width": 4}).defaults("unet")
    rows = [
        {"id": name, **{f"config.{k}": v for k, v in config.items()}, "metric.clean.dice": 0.5}
        for name in ("a1", "a2", "b")
    ]
    study = study_of(["clean.dice"], evaluation={"epsilons": [0, 0.05], "attack_steps": 2})
    write_run(folder, rows, study, SMALL)
    torch.manual_seed(1)
    models = {name: Model(config, SMALL) for name in ("a1", "a2")}
    for name, model in models.items():
        save_model(folder / "checkpoints" / name, model.network, {"id": name})
    return folder, models["a1"]


def test_a_loaded_model_says_what_the_saved_one_said(run: tuple[Path, Model]) -> None:
    folder, saved = run
    loaded = Model.load(folder, "a1")
    said = loaded.predict(IMAGES)
    assert isinstance(said, Prediction)
    assert torch.equal(said.scores, saved.predict(IMAGES.numpy()).scores)
    assert loaded.network.training  # as it was found
    assert isinstance(loaded.method.task, Task)
    # Judged as its study says.
    assert loaded.plan.budgets == (0.05,)
    assert loaded.plan.attack_steps == 2


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        ("a", "trials a1, a2 begin with 'a'"),
        ("z", "no trial begins with 'z'"),
        ("b", "checkpoints/b"),
    ],
)
def test_a_model_that_is_not_there_is_said_to_be(
    run: tuple[Path, Model], trial: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Model.load(run[0], trial)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 1, 8, 8), "images \\(2, 1, 8, 8\\); this model is of \\(B, 1, 16, 16\\)"),
        (2 * torch.ones(2, 1, 16, 16), "outside \\[0, 1\\]"),
        (np.full((1, 1, 16, 16), np.nan), "outside \\[0, 1\\]"),
    ],
)
def test_images_that_it_cannot_know_are_refused(
    run: tuple[Path, Model], images: torch.Tensor | np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run[1].predict(images)


@pytest.mark.parametrize("attack", [None, "pgd", "fast"])
def test_an_attack_stays_within_its_radius_and_does_harm(
    run: tuple[Path, Model], attack: str | None
) -> None:
    model = Model.load(run[0], "a1")
    mask = (IMAGES > 0.5).float()
    batch = Batch(sample_id=("a", "b", "c"), image=IMAGES, mask=mask)
    worse = model.attack(batch, 0.05, attack)
    assert float((worse.image - IMAGES).abs().max()) <= 0.05 + 1e-6
    assert float(worse.image.min()) >= 0
    task = model.method.task

    def harm(at: Batch) -> float:
        return float(task.harm(task.decisions(model.predict(at).scores, at)).mean())

    assert harm(worse) > harm(batch)
