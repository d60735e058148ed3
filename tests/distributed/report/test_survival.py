"""What the report makes of survival: curves by risk, calibration, referral, images, weights."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.run_folders import MANIFEST, study_of, write_card, write_run
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import FollowUp, TaskName
from trustsweep.distributed.report.evaluated import answer, truth_of
from trustsweep.distributed.report.page import render_page, write_report
from trustsweep.distributed.report.sections.images.class_panel import class_panel
from trustsweep.distributed.report.sections.images.panel import panel
from trustsweep.distributed.report.sections.referral import abstentions
from trustsweep.distributed.report.sections.weights import weighings
from trustsweep.distributed.run.evaluation_card import EvaluationCard
from trustsweep.distributed.run.folder import Run

EDGES = [0.0, 100.0, 200.0, 500.0]
OBJECTIVES = {"c_index_area": 0.6, "clean.ece": 0.05}


def group(name: str, level: float) -> dict[str, Any]:
    return {
        "name": name, "patients": 30, "events": 12, "time": [0.0, 50.0, 300.0],
        "alive": [1.0, level, level / 2], "predicted": [level, level / 2, level / 4],
    }  # fmt: skip


def card(name: str, i: int) -> dict[str, Any]:
    groups = [group("low risk", 0.9), group("middle risk", 0.6), group("high risk", 0.3)]
    quality = {"c_index": 0.7, "integrated_brier": 0.15}
    condition = {
        "curve": {"coverage": [0.5, 1.0], "risk": [0.3, 0.5]},
        "all": quality,
        "accepted": [{"coverage": 0.9, **quality}],
    }
    return {
        "id": name, "metrics": {k: v + 0.01 * i for k, v in OBJECTIVES.items()},
        "curves": {"epsilon": [0.0, 0.01], "c_index": [0.7, 0.5]},
        "reliability": {"clean": {"confidence": [0.2], "accuracy": [0.3], "count": [30]}},
        "selective": {
            "thresholds": [{"target": 0.9, "threshold": 1.1, "coverage": 0.9}],
            "conditions": {"clean": condition},
        },
        "survival": {
            "unit": "days", "edges": EDGES,
            "groups": {"clean": groups, "attacked@0.01": groups[::-1]},
        },
        "weights": {
            "modalities": ["xray", "vitals"], "corruption": "mixed-quality", "overall": -0.3,
            "within": -0.25, "pairs": 190, "samples": 90,
        },
    }  # fmt: skip


def arrays() -> dict[str, np.ndarray]:
    """An event at 150 days, predicted there; follow-up until 250, with the event predicted before;
    an event at 900, none predicted until 500."""
    alive = np.array([[0.9, 0.2, 0.1], [0.3, 0.2, 0.1], [0.9, 0.8, 0.7]], np.float32)
    image = np.full((3, 8, 8), 0.5, np.float16)
    shown = {"probability": alive, "uncertainty": np.array([0.1, 0.9, 0.5], np.float32)}
    truth = {"time": np.array([150.0, 250.0, 900.0]), "event": np.array([1.0, 0.0, 1.0])}
    share = np.array([[0.8, 0.2]] * 3, np.float32)
    samples = {**truth, "severity_mixed": share}
    for suffix in ("", "_mixed"):
        samples |= {f"{name}{suffix}": values for name, values in shown.items()}
        samples |= {f"weights{suffix}": share, f"present{suffix}": share > 0}
    return {
        **truth, **shown, "image": image, "epsilon": np.array(0.01),
        **{f"{name}_attacked": v for name, v in {"image": image + 0.01, **shown}.items()},
        **{f"sample_{name}": values for name, values in samples.items()},
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"m{i}", "state": "completed", "reason": "", "epochs": 4, "seconds": 1.0,
            "config.method": "classifier",
            "metric.c_index_area": 0.6 + 0.01 * i, "metric.clean.ece": 0.05 + 0.01 * i,
        }
        for i in range(2)
    ]  # fmt: skip
    manifest = dataclasses.replace(
        MANIFEST,
        tasks=(TaskName.SURVIVAL,),
        classes=(),
        follow_up=FollowUp(unit="days", edges=tuple(EDGES)),
    )
    study = study_of(OBJECTIVES, methods=["classifier"])
    write_run(tmp_path, rows, study, manifest)
    for i in range(2):
        path = write_card(tmp_path, card(f"m{i}", i))
        np.savez(path.with_suffix(".npz"), **arrays())  # type: ignore[arg-type]
    return tmp_path


def first(run: Path) -> EvaluationCard:
    return Run.open(run).front_cards[0]


def test_an_answer_is_when_the_event_is_likeliest(run: Path) -> None:
    told = [answer(first(run), i) for i in range(3)]
    assert [a.name for a in told] == ["100 to 200 days", "0 to 100 days", "after 500 days"]
    assert [a.probability for a in told] == pytest.approx([0.7, 0.7, 0.7])
    # Right where it agrees with what was seen: the event in the last interval, open, was at 900.
    assert [a.right for a in told] == [True, False, False]
    assert [truth_of(first(run), i) for i in range(3)] == [
        "event at 150 days", "no event until 250 days", "event at 900 days",
    ]  # fmt: skip


def test_images_and_weights_show_times(run: Path) -> None:
    shown = class_panel(first(run))
    assert shown is not None
    assert shown.rows[0].truth == "event at 150 days"
    assert shown.rows[1].attacked is not None
    assert panel(first(run)) is None
    (weighing, _) = weighings(Run.open(run))
    assert weighing.rows[1].truth == "no event until 250 days"
    assert not weighing.rows[1].mixed.answer.right


def test_the_page_draws_survival_by_risk(run: Path) -> None:
    page = render_page(Run.open(run))
    assert "Survival by predicted risk" in page
    assert '"reliability_axes":' in page
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "predicted probability of no event up to the end of an interval" in words
    assert "mean of 1 - likelihood" in words
    assert "Concordance index and integrated Brier score" in words
    assert {a.error for a in abstentions(Run.open(run))} == {"likelihood"}
    write_report(Run.open(run))
    figures = {path.stem for path in (run / "figures").iterdir()}
    assert {"survival", "reliability", "risk_coverage", "panel"} <= figures


def test_times_without_the_card_part_are_named(run: Path) -> None:
    write_card(run, {**card("m0", 0), "survival": None})
    with pytest.raises(UserError, match="no `survival`"):
        answer(first(run), 0)
