"""What ignoring the image reaches on real data, and that a model which does so is called so."""

from pathlib import Path

import numpy as np
import pytest

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.schema import Manifest, Split, TaskName
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams import Samples
from trustsweep.distributed.run.trivial import read_trivial
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.space import Space
from trustsweep.search_spaces.study import load
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan
from trustsweep.trainables.metrics.skill import triviality
from trustsweep.trainables.metrics.trivial import TRIVIAL
from trustsweep.trainables.tasks import task_named


def constant(data: Path, method: str, weight: str) -> Training:
    """A model whose last layer is 0 but for its bias: it says the same of every image."""
    config = Space([method], {"epochs": 1, "width": 4}).defaults(method)
    manifest = Manifest.load(data)
    training = Training(config, manifest, EvaluationPlan())
    name, tensor = next(
        (n, p) for n, p in reversed([*training.network.named_parameters()]) if n.endswith(weight)
    )
    bias = training.network.get_parameter(f"{name.removesuffix(weight)}bias")
    tensor.data.zero_()
    bias.data.fill_(-4.0)
    bias.data[1:] = 0.0
    return training


def test_on_brain_mri_an_empty_mask_has_a_high_dice_and_no_skill(
    real_data: Path, tmp_path: Path
) -> None:
    prepare(real_data / "lgg-mri-segmentation" / "kaggle_3m", "lgg", tmp_path / "d", size=32)
    manifest = Manifest.load(tmp_path / "d")
    known = read_trivial(Folder(tmp_path / "d"), manifest, TaskName.SEGMENTATION)
    val = Samples.read(tmp_path / "d", Split.VAL)
    mask = val.batch(range(len(val))).mask
    assert mask is not None
    clear = float((mask.flatten(1).sum(dim=1) == 0).float().mean())
    empty = known.figures["val"]["empty mask"]
    assert empty["dice"] == pytest.approx(clear)
    assert clear > 0.5
    assert empty["dice_lesion"] == empty["dice_micro"] == 0
    # Tumours lie in the same places of the head often enough for a fixed mask to find some.
    assert known.figures["val"]["fixed mask"]["dice_lesion"] > 0.05

    training = constant(tmp_path / "d", "unet", "weight")
    training.prior = known.prior
    found = training.evaluate(val, batch_size=32).compute()
    assert found["clean.dice"] == pytest.approx(clear)
    assert found["skill.clean.dice_lesion"] < 0
    assert triviality(found, known.figures["val"]) == "predicts nothing"
    (constraint,) = load("evidential").constraints
    assert constraint.violation(found[constraint.metric]) > 0


@pytest.mark.parametrize("name", ["pneumoniamnist", "breastmnist"])
def test_on_medmnist_a_constant_class_is_accurate_and_has_no_skill(
    name: str, real_data: Path, tmp_path: Path
) -> None:
    prepare(real_data / "medmnist" / f"{name}.npz", "medmnist", tmp_path / "d", size=28)
    manifest = Manifest.load(tmp_path / "d")
    known = read_trivial(Folder(tmp_path / "d"), manifest, TaskName.CLASSIFICATION)
    val = Samples.read(tmp_path / "d", Split.VAL)
    label = val.batch(range(len(val))).label
    assert label is not None
    majority = np.bincount(label.numpy()).max() / len(label)
    assert known.figures["val"]["best constant"]["accuracy"] == pytest.approx(majority)
    assert majority > 0.6

    training = constant(tmp_path / "d", "classifier", "weight")
    training.prior = known.prior
    found = training.evaluate(val, batch_size=64).compute()
    assert found["clean.balanced_accuracy"] == 0.5
    assert found["skill.clean.balanced_accuracy"] == 0
    assert triviality(found, known.figures["val"]) == "predicts one class for every image"
    (constraint,) = load("classification").constraints
    assert constraint.violation(found[constraint.metric]) > 0


@pytest.mark.parametrize("task", [TaskName.SEGMENTATION, TaskName.CLASSIFICATION])
def test_what_a_study_is_checked_with_is_what_an_evaluation_gives(
    task: TaskName, phantoms: Path
) -> None:
    """Read from the shards before a sweep, and gathered from the batches that models are judged on.

    Labels and masks are the same bits, so figures differ by the order of float64 sums at most.
    """
    manifest = Manifest.load(phantoms)
    known = read_trivial(Folder(phantoms), manifest, task)
    asked = task_named(task)
    prior = asked.read_prior(Samples.read(phantoms, Split.TRAIN).sweep(7))
    for name in ("counts", "mean", "fixed"):
        mine, theirs = getattr(known.prior, name), getattr(prior, name)
        assert mine is theirs is None or np.array_equal(mine, theirs)
    for split in known.figures:
        judged = Evaluation(EvaluationPlan(), asked, prior)
        for batch in Samples.read(phantoms, Split(split)).sweep(7):
            judged.update_truth(batch)
        figures = judged.trivial()
        assert figures.keys() == known.figures[split].keys()
        for predictor, row in figures.items():
            assert row == pytest.approx(known.figures[split][predictor], abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("task", TaskName)
def test_the_predictors_of_a_task_are_its_own(task: TaskName) -> None:
    """Those that a study is checked with, before torch is loaded, and those of an evaluation."""
    assert TRIVIAL[task] is task_named(task).trivial
