"""Classifiers evaluated on the test split: the cards and arrays that the report is made from."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.schema import Manifest, Split, TaskName
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams import Streamed
from trustsweep.distributed.run.checkpoints import save_model
from trustsweep.distributed.run.folder import evaluation_plan
from trustsweep.distributed.run.ledger import SEARCH, SEEDS, Record
from trustsweep.distributed.run.sample_table import SALT, salt
from trustsweep.distributed.run.trivial import read_trivial
from trustsweep.distributed.sweep.robustness import EFFORT
from trustsweep.distributed.sweep.selective import COVERAGES
from trustsweep.distributed.sweep.test_evaluation import evaluate_model, has_card, panel_batch
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.space import Space
from trustsweep.search_spaces.study import Study
from trustsweep.trainables.attacks import ensemble
from trustsweep.trainables.attacks.masking import Effort
from trustsweep.trainables.metrics.names import MetricName
from trustsweep.trainables.metrics.skill import triviality

EPSILON, WORST = 0.02, "corrupted@gaussian-noise-5"
ATTACKED = {"epsilons": [0, EPSILON], "attack_steps": 1, "final": "fast"}
THOROUGHLY = {**ATTACKED, "final": "full"}
Judged = tuple[dict[str, Any], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 generated images with vital signs; one site is held out."""
    out = tmp_path_factory.mktemp("data") / "sites"
    prepare(None, "phantoms", out, size=32, count=96, ood_site="portable")
    return out


def study_of(
    method: str, evaluation: dict[str, Any], objectives: Sequence[str] = ("clean.auroc",)
) -> Study:
    return Study.model_validate(
        {
            "name": "evaluated", "methods": [method], "objectives": list(objectives),
            "evaluation": {"corruptions": ["gaussian-noise"], "severities": [1, 5], **evaluation},
        }
    )  # fmt: skip


def config_of(method: str, width: int = 4) -> dict[str, Any]:
    return Space([method], {"epochs": 1, "width": width}).defaults(method)


def evaluated(
    data: Path,
    folder: Path,
    method: str,
    evaluation: dict[str, Any],
    stage: str = SEARCH,
    objectives: Sequence[str] = ("clean.auroc",),
    width: int = 4,
) -> Judged:
    """The card and arrays of a narrow network as it was initialised.

    Attacks and the search for signs take fewer steps than where a front is evaluated: what the card
    and the report make of their figures is the same.
    """
    study = study_of(method, evaluation, objectives)
    manifest = Manifest.load(data)
    config = config_of(method, width)
    record = Record("model", config, stage=stage)
    network = Training(config, manifest, evaluation_plan(study)).network
    save_model(folder / "checkpoints" / record.id, network, {})
    (folder / "evaluation").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "STEPS", {32**2: 6})
        patch.setitem(EFFORT, "full", Effort(steps=8, queries=40))
        evaluate_model(study, Folder(data), manifest, record, folder, folder / "checkpoints")
    arrays = folder / "evaluation" / "model.npz"
    stored = dict(np.load(arrays, allow_pickle=False)) if arrays.is_file() else {}
    return json.loads((folder / "evaluation" / "model.json").read_text()), stored


@pytest.fixture(scope="module")
def classifier(sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return evaluated(sites, tmp_path_factory.mktemp("run"), "classifier", THOROUGHLY)


@pytest.fixture(scope="module")
def fused(sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return evaluated(sites, tmp_path_factory.mktemp("run"), "draf", ATTACKED)


def of_condition(card: dict[str, Any], condition: str) -> set[tuple[str, bool]]:
    """The metrics of a condition, each with whether it is a skill."""
    names = map(MetricName.parse, card["metrics"])
    return {(n.metric, n.skill) for n in names if str(n.condition) == condition}


def test_thresholds_come_from_validation_and_stand_elsewhere(classifier: Judged) -> None:
    card, _ = classifier
    thresholds, conditions = card["selective"]["thresholds"], card["selective"]["conditions"]
    assert [t["target"] for t in thresholds] == list(COVERAGES)
    assert all(t["coverage"] >= t["target"] for t in thresholds)
    limits = [t["threshold"] for t in thresholds]
    assert limits == sorted(limits, reverse=True)
    assert list(conditions) == ["clean", WORST, "ood"]
    for condition in conditions.values():
        assert len(condition["accepted"]) == len(COVERAGES)
        reached = [row["coverage"] for row in condition["accepted"]]
        assert reached == sorted(reached, reverse=True)


@pytest.mark.parametrize("condition", ["clean", WORST])
def test_the_curve_and_the_metrics_tell_of_the_same_images(
    classifier: Judged, condition: str
) -> None:
    card, _ = classifier
    told = card["selective"]["conditions"][condition]
    assert np.mean(told["curve"]["risk"]) == pytest.approx(card["metrics"][f"{condition}.aurc"])
    for name in ("accuracy", "auroc"):
        assert told["all"][name] == pytest.approx(
            card["metrics"][f"{condition}.{name}"], nan_ok=True
        )


def test_temperature_is_fitted_on_validation_and_told_of_both_splits(classifier: Judged) -> None:
    card = classifier[0]
    found = card["temperature"]
    assert found["value"] > 0
    # On the split that it was fitted on the likelihood cannot fall.
    assert found["val"]["after"]["nll"] <= found["val"]["before"]["nll"] + 1e-6
    for name, value in found["test"]["before"].items():
        assert value == card["metrics"][f"clean.{name}"]
    assert found["test"]["after"]["nll"] != found["test"]["before"]["nll"]
    assert "ece_region" not in found["test"]["after"]


def test_a_held_out_site_has_metrics_of_its_own(classifier: Judged, sites: Path) -> None:
    card, _ = classifier
    assert card["ood"]["samples"] == Manifest.load(sites).split_counts["ood"]
    assert of_condition(card, "ood") == of_condition(card, "clean")
    assert card["metrics"]["ood.accuracy"] == pytest.approx(
        card["selective"]["conditions"]["ood"]["all"]["accuracy"]
    )


def test_a_method_of_one_modality_has_no_weights(classifier: Judged) -> None:
    card, arrays = classifier
    assert "weights" not in card
    assert not any(name.startswith("sample_") for name in arrays)
    assert {"clean", f"attacked@{EPSILON}"} == card["reliability"].keys()
    assert len(arrays["image_attacked"]) == len(arrays["label"]) == 6


def test_weights_of_modalities_are_kept_beside_their_quality(fused: Judged) -> None:
    card, arrays = fused
    weights = card["weights"]
    assert weights["modalities"] == ["xray", "vitals"]
    assert -1 <= weights["within"] <= 1
    assert -1 <= weights["overall"] <= 1
    present, severity = arrays["sample_present"], arrays["sample_severity_mixed"]
    assert severity.max() <= 5
    assert (severity[present] > 0).mean() > 0.9  # p = 1; a mask of features may take none
    for suffix in ("", "_mixed"):
        weight = arrays[f"sample_weights{suffix}"]
        assert weight.sum(axis=1) == pytest.approx(np.ones(len(weight)), abs=1e-5)
        assert not weight[~present].any()
        assert arrays[f"sample_probability{suffix}"].shape == (len(weight), 2)
        assert arrays[f"sample_uncertainty{suffix}"].shape == (len(weight),)


def test_a_repeat_has_a_card_alone(sites: Path, tmp_path: Path) -> None:
    card, arrays = evaluated(sites, tmp_path, "draf", {"epsilons": [0]}, SEEDS)
    assert card["weights"]
    assert not arrays


def test_a_card_that_tells_less_than_is_asked_for_now_is_made_anew(
    phantoms: Path, tmp_path: Path
) -> None:
    plan = {"epsilons": [0], "final": "fast"}
    evaluated(phantoms, tmp_path, "unet", plan, objectives=("clean.dice",))
    record, repeat = (Record("model", {}, stage=stage) for stage in (SEARCH, SEEDS))
    same, other = (study_of("unet", plan, [name]) for name in ("clean.dice", "clean.nll"))
    more = study_of("unet", {**plan, "final": "full"}, ["clean.dice"])
    assert has_card(tmp_path, record, same)
    assert not has_card(tmp_path, record, more)
    assert not has_card(tmp_path, record, other)
    assert not has_card(tmp_path / "elsewhere", record, same)
    # No figure of a repeat depends on the objectives.
    path = tmp_path / "evaluation" / "model.json"
    evaluate_model(
        same, Folder(phantoms), Manifest.load(phantoms),
        Record("model", config_of("unet"), stage=SEEDS),
        tmp_path, tmp_path / "checkpoints",
    )  # fmt: skip
    assert has_card(tmp_path, repeat, other)
    path.write_text(json.dumps({"id": "model"}))  # of an earlier version
    assert not has_card(tmp_path, repeat, same)


def test_a_panel_has_those_with_a_lesion_first_in_the_order_of_the_draw(sites: Path) -> None:
    """As if all that were drawn had been in memory at once."""
    samples = Streamed(Folder(sites), Split.TRAIN, Manifest.load(sites))
    drawn = samples.batch(np.argsort(draw_seeds(samples.sample_ids, "panel").numpy())[:64].tolist())
    assert drawn.mask is not None
    lesion = drawn.mask.flatten(1).any(dim=1).tolist()
    assert not all(lesion)
    expected = sorted(range(len(drawn)), key=lambda row: not lesion[row])[:8]
    assert panel_batch(samples, 8).sample_id == drawn.select(expected).sample_id


def test_without_attacks_the_panel_is_clean(phantoms: Path, tmp_path: Path) -> None:
    card, arrays = evaluated(phantoms, tmp_path, "unet", {"epsilons": [0]})
    assert card["curves"] == {}
    assert card["reliability"].keys() == {"clean"}
    assert "image" in arrays
    assert "image_attacked" not in arrays
    assert not {"ood", "weights"} & card.keys()


def test_segmentations_are_referred_by_the_uncertainty_of_the_image(
    phantoms: Path, tmp_path: Path
) -> None:
    card, _ = evaluated(phantoms, tmp_path, "unet", {"epsilons": [0]})
    told = card["selective"]["conditions"]
    assert list(told) == ["clean", WORST]
    assert all(t["coverage"] >= t["target"] for t in card["selective"]["thresholds"])
    for name, condition in told.items():
        assert np.mean(condition["curve"]["risk"]) == pytest.approx(card["metrics"][f"{name}.aurc"])
        for metric in ("dice", "dice_lesion"):
            found = card["metrics"][f"{name}.{metric}"]
            assert condition["all"][metric] == pytest.approx(found)


def test_a_card_says_what_ignoring_the_image_would_give(phantoms: Path, tmp_path: Path) -> None:
    """A network as it was initialised is no better; the figures are those of the split's truth."""
    card, _ = evaluated(phantoms, tmp_path, "unet", {"epsilons": [0]}, width=16)
    manifest = Manifest.load(phantoms)
    known = read_trivial(Folder(phantoms), manifest, TaskName.SEGMENTATION)
    for name, row in card["trivial"].items():
        assert row == pytest.approx(known.figures["test"][name], nan_ok=True)
    assert card["triviality"] == triviality(card["metrics"], card["trivial"]) != ""


def test_a_held_out_site_is_judged_of_segmentations_too(sites: Path, tmp_path: Path) -> None:
    card, _ = evaluated(sites, tmp_path, "unet", THOROUGHLY)
    assert card["ood"]["samples"] == Manifest.load(sites).split_counts["ood"]
    assert of_condition(card, "ood") == of_condition(card, "clean")
    assert list(card["selective"]["conditions"])[-1] == "ood"
    for split in ("val", "test", "ood"):
        told = card["estimates"][split]
        assert told["images"] == Manifest.load(sites).split_counts[split]
        assert 0 < told["patients"] <= told["images"]
    assert card["estimates"]["ood"]["sites"] == 1
    # From the samples' rows, what the streaming metrics say of the same images.
    assert {"dice_area", "attacked@0.02.dice"} & card["estimates"]["test"]["figures"].keys()
    assert {n.partition(".")[0] for n in card["estimates"]["ood"]["figures"]} == {"ood"}
    for split in ("test", "ood"):
        told = card["estimates"][split]
        assert told.keys() >= ({"figures", "final"} if split == "test" else {"figures"})
        for name, estimate in told.get("final", told["figures"]).items():
            assert estimate["value"] == pytest.approx(card["metrics"][name], nan_ok=True), name
            assert not estimate["low"] > estimate["high"]
    # The search's attack, part of the full one, does no more harm.
    told, name = card["estimates"]["test"], f"attacked@{EPSILON}.dice"
    assert told["final"][name]["value"] <= told["figures"][name]["value"] + 1e-9


def test_what_each_sample_scored_is_kept_without_its_patient(
    classifier: Judged, sites: Path, tmp_path: Path
) -> None:
    card, _ = classifier
    for name, estimate in card["estimates"]["test"]["final"].items():
        assert estimate["value"] == pytest.approx(card["metrics"][name], nan_ok=True), name
    evaluated(sites, tmp_path, "classifier", ATTACKED)
    table = pq.read_table(tmp_path / "evaluation" / "model.parquet").to_pandas()
    known = {
        split: read_table(sites, Split(split), ["sample_id", "patient_id"]).to_pandas()
        for split in ("val", "test", "ood")
    }
    patients = {p for frame in known.values() for p in frame.patient_id}
    text = (tmp_path / "evaluation" / "model.json").read_text()
    assert not any(patient in text for patient in patients)
    assert not table.astype(str).isin(patients).any().any()
    conditions = {split: set(rows.condition) for split, rows in table.groupby("split")}
    assert conditions["ood"] == {"ood"}
    everything = {"clean", "corrupted@gaussian-noise-1", WORST, f"attacked@{EPSILON}"}
    assert conditions["test"] == conditions["val"] == everything
    for split, frame in known.items():
        condition = "ood" if split == "ood" else "clean"
        rows = table[(table.split == split) & (table.condition == condition)].set_index("sample_id")
        assert set(rows.index) == set(frame.sample_id)
        # One hash a patient, and one patient a hash.
        pairs = {(frame.patient_id[i], rows.patient[name]) for i, name in frame.sample_id.items()}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    clean = table[(table.split == "test") & (table.condition == "clean")]
    assert clean.correct.mean() == pytest.approx(card["metrics"]["clean.accuracy"])
    assert ((clean.predicted == clean.truth) == (clean.correct == 1)).all()
    assert {"site", "sex", "age", "uncertainty", "probability_of_truth"} <= set(table.columns)


def test_the_hash_of_a_patient_is_the_runs_own(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = salt(tmp_path), salt(tmp_path / "other")
    assert first == salt(tmp_path) != second
    assert (tmp_path / SALT).stat().st_mode & 0o077 == 0


def test_data_without_images_are_judged_as_well(real_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "heart"
    prepare(real_data / "uci_heart_disease", "uci-heart", data, size=32, ood_site="switzerland")
    measured = {"epsilons": [0], "corruptions": ["modality-drop"]}
    card, arrays = evaluated(data, tmp_path, "draf", measured)
    assert all(name.startswith("sample_") for name in arrays)
    assert arrays["sample_weights"].shape == (24, 4)
    assert list(card["selective"]["conditions"]) == ["clean", "corrupted@modality-drop-5", "ood"]
    assert math.isfinite(card["metrics"]["ood.auroc"])
    assert len(card["selective"]["conditions"]["clean"]["curve"]["risk"]) <= 101
