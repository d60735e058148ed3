"""What the report makes of classifiers' cards: abstention, corruption, unseen sites, weights."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.run_folders import (
    MANIFEST,
    card_content,
    rewrite,
    rows_of,
    study_of,
    write_card,
    write_run,
)  # fmt: skip
from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.report.page import render_page, write_report
from trustsweep.distributed.report.sections.corruptions import worsenings
from trustsweep.distributed.report.sections.images.class_panel import class_panel
from trustsweep.distributed.report.sections.images.panel import panel
from trustsweep.distributed.report.sections.referral import abstentions
from trustsweep.distributed.report.sections.weights import weighings
from trustsweep.distributed.run.evaluation_card import EvaluationCard
from trustsweep.distributed.run.folder import Run

TARGETS = (0.95, 0.9)
CELLS = [("modality-drop", 1), ("modality-drop", 5), ("gaussian-noise", 3)]
METHODS = ("late-fusion", "draf", "draf")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def metrics(i: int) -> dict[str, float]:
    """Trial `i` loses AUROC with severity, the later ones less, and is the worse calibrated."""
    values = {"clean.auroc": 0.9, "clean.ece": 0.02 * (i + 1), "corrupted.auroc": 0.7 + 0.05 * i}
    for name, severity in CELLS:
        values[f"corrupted@{name}-{severity}.auroc"] = 0.9 - 0.09 * severity / (i + 1)
        values[f"corrupted@{name}-{severity}.ece"] = 0.05 * severity
    return values


def selective(accuracy: float) -> dict[str, Any]:
    quality = {"accuracy": accuracy, "precision": accuracy, "auroc": float("nan")}
    condition = {
        "curve": {"coverage": [0.5, 1.0], "risk": [0.0, 1 - accuracy]},
        "all": quality,
        "accepted": [{"coverage": t, **quality} for t in TARGETS],
    }
    thresholds = [{"target": t, "threshold": t - 0.4, "coverage": t} for t in TARGETS]
    return {
        "thresholds": thresholds,
        "conditions": {
            "clean": condition,
            "corrupted@modality-drop-5": condition,
            "ood": condition,
        },
    }


def card(name: str, i: int, **more: Any) -> dict[str, Any]:
    bins = {"confidence": [0.6, 0.9], "accuracy": [0.5, 0.9], "count": [10, 30]}
    return {
        "id": name, "classes": ["well", "ill"], "metrics": metrics(i),
        "curves": {}, "reliability": {"clean": bins}, "selective": selective(0.8 + 0.01 * i),
        "ood": {"samples": 123},
        "weights": {
            "modalities": ["xray", "vitals"], "corruption": "mixed-quality", "overall": -0.3,
            "within": -0.25, "pairs": 190, "samples": 90,
            "within_low": -0.12, "within_high": 0.11, "within_p": 0.004,
        },
        **more,
    }  # fmt: skip


def samples(**more: np.ndarray) -> dict[str, np.ndarray]:
    """Three samples: led by the X-ray and sure, by vitals and unsure, without vitals."""
    weight = np.array([[0.8, 0.2], [0.3, 0.7], [1.0, 0.0]], np.float32)
    arrays = {
        "label": np.array([1, 0, 1]),
        "severity_mixed": np.array([[0, 3], [5, 0], [2, 0]], np.float32),
    }
    for suffix in ("", "_mixed"):
        arrays |= {
            f"present{suffix}": weight > 0,
            f"weights{suffix}": weight if not suffix else np.full((3, 2), 0.5, np.float32),
            f"probability{suffix}": np.array([[0.1, 0.9]] * 3, np.float32),
            f"uncertainty{suffix}": np.array([0.5, 0.51, 0.1], np.float32),
        }
    return {f"sample_{name}": values for name, values in {**arrays, **more}.items()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three models on the front of a study of tables: no images, no attacks."""
    rows = [
        {
            "id": f"m{i}", "state": "completed", "reason": "", "epochs": 4, "seconds": 1.0,
            "config.method": method, **{f"metric.{k}": v for k, v in metrics(i).items()},
        }
        for i, method in enumerate(METHODS)
    ]  # fmt: skip
    study = study_of(
        ["corrupted.auroc", "clean.ece"], evaluation={"suite": "clinical", "epsilons": [0.0]}
    )
    manifest = dataclasses.replace(MANIFEST, name="heart", image_shape=())
    write_run(tmp_path, rows, study, manifest)
    for i in range(len(METHODS)):
        path = write_card(tmp_path, card(f"m{i}", i))
        np.savez(path.with_suffix(".npz"), **samples())  # type: ignore[arg-type]
    return tmp_path


def text_of(run: Path) -> str:
    page = render_page(Run.open(run))
    page = re.sub(r"<(script|style)[^>]*>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_each_method_is_told_by_its_best_trial(run: Path) -> None:
    drop, noise = sorted(worsenings(Run.open(run)), key=lambda w: -len(w.labels))
    assert [(loss.method, loss.id) for loss in drop.losses] == [
        ("draf", "m2"),
        ("late-fusion", "m0"),
    ]
    assert (drop.corruption, drop.parameter) == ("modality-drop", "p_miss")
    assert (drop.severities, drop.labels) == ([0, 1, 5], ["clean", "0.1", "0.7"])
    assert drop.losses[1].drop == pytest.approx([0, 10, 50])
    assert noise.labels == ["clean", "0.12"]  # the suite lists none of its own


def test_an_unknown_corruption_keeps_its_severities(run: Path) -> None:
    rows = [
        {key.replace("gaussian-noise", "of-another-version"): value for key, value in row.items()}
        for row in rows_of(run)
    ]
    rewrite(run, rows)
    labels = {w.corruption: w.labels for w in worsenings(Run.open(run))}
    assert labels["of-another-version"] == ["clean", "severity 3"]


def test_thresholds_stand_beside_what_all_answers_give(run: Path) -> None:
    first = abstentions(Run.open(run))[0]
    assert first.limits == pytest.approx({0.95: 0.55, 0.9: 0.5})
    assert [kept.target for kept in first.kept["ood"]] == [None, 0.95, 0.9]
    assert [kept.coverage for kept in first.kept["clean"]] == [1.0, 0.95, 0.9]


def test_who_carried_a_prediction_and_who_would_rather_abstain(run: Path) -> None:
    told = weighings(Run.open(run))[0]
    assert told.limit == pytest.approx(0.5)
    largest = [[w.largest for w in row.clean.weights] for row in told.rows]
    assert largest == [[True, False], [False, True], [True, False]]
    # Exactly on the threshold is accepted.
    assert [row.clean.doubtful for row in told.rows] == [False, True, False]
    assert [row.clean.answer.right for row in told.rows] == [True, False, True]
    assert not any(w.largest for row in told.rows[:2] for w in row.mixed.weights)  # equal
    assert [w.present for w in told.rows[2].clean.weights] == [True, False]


def test_a_sample_without_any_modality_was_carried_by_none(run: Path) -> None:
    nothing = np.zeros((3, 2), np.float32)
    unsure = samples(present=nothing > 0, weights=nothing, uncertainty=np.full(3, np.nan))
    np.savez(run / "evaluation" / "m0.npz", **unsure)  # type: ignore[arg-type]
    told = next(w for w in weighings(Run.open(run)) if w.id == "m0")
    assert not any(w.largest or w.present for row in told.rows for w in row.clean.weights)
    assert all(row.clean.doubtful for row in told.rows)


def test_the_page_tells_of_it_and_of_no_attack_and_no_image(run: Path) -> None:
    page = text_of(run)
    for words in (
        "Under corruption", "p_miss 0.7; ECE 0.25", "-50.0 %", "At sites unseen in training",
        "test split, modality-drop-5", "-0.25 within the 90 samples", "low confidence",
            "by chance -0.12 to +0.11, p = 0.004",
        "Low confidence: 1 of 3 samples", "severity 5", "absent",
    ):  # fmt: skip
        assert words in page, words
    for title in ("Under attack", "Test images", "have not been evaluated"):
        assert title not in page
    write_report(Run.open(run))
    drawn = {p.stem for p in (run / "figures").glob("*.png")}
    assert {"risk_coverage", "corruptions", "reliability"} <= drawn
    assert not {"under_attack", "panel"} & drawn


def test_models_without_it_have_no_such_sections(run: Path) -> None:
    for path in (run / "evaluation").glob("*.json"):
        kept = card_content(path)
        for part in ("selective", "ood", "weights"):
            del kept[part]
        write_card(run, kept)
    page = text_of(run)
    for title in ("Abstention", "At sites unseen", "What carried"):
        assert title not in page


def test_what_cannot_be_read_is_named(run: Path) -> None:
    broken = card("m1", 1)
    del broken["selective"]["conditions"]["clean"]["accepted"][0]
    write_card(run, broken)
    with pytest.raises(UserError, match=r"m1\.json: unreadable `selective`"):
        abstentions(Run.open(run))
    write_card(run, card("m1", 1))
    short = samples(uncertainty=np.zeros(2, np.float32))
    np.savez(run / "evaluation" / "m1.npz", **short)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"m1\.npz: needs sample_label"):
        weighings(Run.open(run))


def with_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> EvaluationCard:
    path = write_card(folder, {"id": "m"})
    np.savez(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    return EvaluationCard.read(path)


def test_panels_without_an_attack_show_the_clean_side_alone(tmp_path: Path) -> None:
    image = np.full((2, 8, 8), 0.5, np.float16)
    numbers = {"probability": np.array([[0.2, 0.8]] * 2), "uncertainty": np.full(2, 0.3)}
    classified = {"image": image, **numbers, "label": np.array([1, 0]), "epsilon": np.array(0.0)}
    shown = class_panel(with_arrays(tmp_path, classified))
    assert shown is not None
    assert [row.attacked for row in shown.rows] == [None, None]
    pictures = dict.fromkeys(("image", "mask", "probability", "uncertainty"), image)
    segmented = panel(with_arrays(tmp_path, {**pictures, "epsilon": np.array(0.0)}))
    assert segmented is not None
    assert [(len(row.clean), row.attacked) for row in segmented.rows] == [(4, []), (4, [])]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_browser_draws_all_of_it(run: Path, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        write_report(Run.open(run)).as_uri(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    for figure in ("risk", "worsenings", "reliability"):
        home = result.stdout.partition(f'id="{figure}"')[2].partition("How to read")[0]
        assert 'class="main-svg"' in home, figure
