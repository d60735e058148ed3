"""Models that ignore the image, as terminal and report call them; referral on the page."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.distributed.report.test_page import Elements
from tests.distributed.run_folders import study_of, write_card, write_run
from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.report.page import render_page, write_report
from trustsweep.distributed.report.sections.beside import beside
from trustsweep.distributed.report.sections.referral import abstentions
from trustsweep.distributed.report.wording import headline, roles
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import Record, State
from trustsweep.distributed.run.trivial import (
    TRIVIAL_NAME,
    load_figures,
    save_figures,
    trivial_lines,
)
from trustsweep.distributed.statistics.front import Objective
from trustsweep.distributed.sweep.progress import SHOWN, front_table
from trustsweep.search_spaces.space import Space

FIGURES = {
    "empty mask": {"dice": 0.6, "dice_lesion": 0.0, "false_alarms": 0.0, "brier": 0.05},
    "fixed mask": {"dice": 0.1, "dice_lesion": 0.25, "false_alarms": 1.0, "brier": 0.2},
    "best constant": {"dice": 0.6, "dice_lesion": math.nan, "false_alarms": 0.0, "brier": 0.04},
}
OBJECTIVES = [Objective("clean.dice_lesion", "max"), Objective("clean.ece_region", "min")]
#: Trial to Dice of lesions, ECE and share of empty predictions.
MODELS = {"good": (0.7, 0.1, 0.55), "empty": (0.0, 0.01, 1.0), "poor": (0.2, 0.05, 0.3)}


def metrics(model: str) -> dict[str, float]:
    found, ece, empty = MODELS[model]
    return {
        "clean.dice_lesion": found, "clean.ece_region": ece, "clean.empty_share": empty,
        "clean.dice": 0.6, "clean.false_alarms": 0.1, "clean.brier": 0.03,
        "clean.ece_region_floor": 0.021, "clean.ece_region_debiased": ece / 2,
        "skill.clean.dice_lesion": (found - 0.25) / 0.75, "skill.clean.dice": 0.0,
        "skill.clean.brier": 0.25,
    }  # fmt: skip


def card(model: str) -> dict[str, Any]:
    quality = {"dice": 0.6, "dice_lesion": 0.5}
    condition = {
        "curve": {"coverage": [0.5, 1.0], "risk": [0.1, 0.4]},
        "all": quality,
        "accepted": [{"coverage": 0.88, "dice": 0.75, "dice_lesion": math.nan}],
    }
    return {
        "id": model, "metrics": metrics(model), "trivial": FIGURES,
        "triviality": "predicts nothing" if model == "empty" else "",
        "curves": {"epsilon": [0.0, 0.01], "dice_lesion": [0.7, 0.6]},
        "reliability": {"clean": {"confidence": [0.9], "accuracy": [0.8], "count": [10]}},
        "selective": {
            "thresholds": [{"target": 0.9, "threshold": 0.3, "coverage": 0.9}],
            "conditions": {"clean": condition},
        },
        "temperature": {
            "value": 1.875,
            "test": {"before": {"ece": 0.125, "nll": 0.5}, "after": {"ece": 0.0625, "nll": 0.375}},
        },
    }  # fmt: skip


def write(folder: Path, constraints: tuple[str, ...] = (), judged: bool = True) -> Path:
    rows = [
        {"id": model, "state": "completed", "reason": "", "epochs": 1, "seconds": 1.0}
        | {f"metric.{name}": value for name, value in metrics(model).items()}
        for model in MODELS
    ]
    study = study_of([o.name for o in OBJECTIVES], constraints=list(constraints))
    write_run(folder, rows, study)
    save_figures(folder, {"val": FIGURES})
    for model in MODELS if judged else ():
        write_card(folder, card(model))
    return folder


def payload(page: str) -> dict[str, Any]:
    begin = page.index('id="report-data">') + len('id="report-data">')
    return dict(json.loads(page[begin : page.index("</script>", begin)]))


def test_the_headline_calls_a_trivial_model_so(tmp_path: Path) -> None:
    run = Run.open(write(tmp_path))
    assert {t.id for t in run.front} == {"good", "empty", "poor"}
    fixed = "no better than the fixed mask (dice_lesion)"
    assert run.remarks == {"empty": "predicts nothing", "poor": fixed}
    told = headline(run)
    assert any(s.startswith("Best clean.ece_region: trial empty") for s in told)
    assert next(s for s in told if "trial empty" in s).endswith(", predicts nothing.")
    assert "1 of 3 completed trials: predicts nothing (empty)." in told
    assert roles(run)["empty"] == "best clean.ece_region, predicts nothing"
    assert roles(run)["good"] == "best clean.dice_lesion"
    assert roles(run)["poor"] == f"in between, {fixed}"


def test_a_constraint_on_skill_leaves_it_off_the_front(tmp_path: Path) -> None:
    run = Run.open(write(tmp_path, ("skill.clean.dice_lesion >= 0.05",)))
    assert [t.id for t in run.front] == ["good"]


def test_without_a_model_that_keeps_the_constraints_that_is_said(tmp_path: Path) -> None:
    run = Run.open(write(tmp_path, ("skill.clean.dice_lesion >= 0.9",)))
    told = headline(run)
    assert "No completed trial meets the constraints: there is no front to show." in told
    assert "1 of 3 completed trials: predicts nothing (empty)." in told
    assert "meets the constraints" in Elements(render_page(Run.open(tmp_path))).text


def test_the_page_marks_it_and_shows_what_ignoring_the_image_reaches(tmp_path: Path) -> None:
    page = render_page(Run.open(write(tmp_path)))
    elements = Elements(page)
    for told in (
        "Beside predictors that ignore the image",
        "empty mask 0.6 0 0 0.05",
        "fixed mask 0.1 0.25 1 0.2",
        "A flat line alone proves nothing",
        "perfect at this n",
        "0.021",
        "1.88 0.125 0.0625 0.5 0.375",
        "A cross over a mark: the model predicts the same for every image",
    ):
        assert told in elements.text, told
    badges = [a for tag, a in elements.found if tag == "span" and a.get("class") == "badge warn"]
    assert len(badges) == 3  # two rows of trials, and the front's model on the test split
    drawn = payload(page)
    remarks = dict(zip(drawn["trials"]["id"], drawn["trials"]["remark"], strict=True))
    assert remarks == {
        "good": "", "empty": "predicts nothing",
        "poor": "no better than the fixed mask (dice_lesion)",
    }  # fmt: skip
    assert drawn["trivial"]["dice_lesion"] == 0.25
    assert drawn["trivial"]["brier"] == 0.04


def test_segmentations_are_referred(tmp_path: Path) -> None:
    run = Run.open(write(tmp_path))
    (first, *_) = abstentions(run)
    assert first.segmented
    everything, most = first.kept["clean"]
    assert (everything.target, everything.quality["dice"]) == (None, 0.6)
    assert (most.target, most.coverage, most.quality["dice"]) == (0.9, 0.88, 0.75)
    page = write_report(Run.open(tmp_path)).read_text(encoding="utf-8")
    text = Elements(page).text
    assert "Referral" in text
    assert "the uncertainty of an image is the mean of its map" in text
    assert {risk["error"] for risk in payload(page)["risks"]} == {"dice"}
    assert (tmp_path / "figures" / "risk_coverage.png").is_file()


def test_before_the_front_is_judged_validation_figures_stand_there(tmp_path: Path) -> None:
    shown = beside(Run.open(write(tmp_path, judged=False)))
    assert shown is not None
    assert shown.split == "validation"
    assert shown.best["dice_lesion"] == "fixed mask"
    good = next(row for row in shown.models if row.name == "good")
    assert good.skills["dice_lesion"] == pytest.approx(0.6)
    assert math.isnan(good.skills["false_alarms"])


def test_a_run_that_does_not_know_them_has_no_such_table(tmp_path: Path) -> None:
    write(tmp_path, judged=False)
    (tmp_path / TRIVIAL_NAME).unlink()
    assert beside(Run.open(tmp_path)) is None
    assert "no better than the best trivial predictor" in Run.open(tmp_path).remarks["poor"]
    assert "Beside predictors" not in render_page(Run.open(tmp_path))


def test_figures_survive_their_file_and_a_broken_one_is_named(tmp_path: Path) -> None:
    save_figures(tmp_path, {"val": FIGURES})
    back = load_figures(tmp_path)["val"]
    assert math.isnan(back["best constant"].pop("dice_lesion"))
    assert back == {n: {m: v for m, v in r.items() if v == v} for n, r in FIGURES.items()}
    assert "NaN" not in (tmp_path / TRIVIAL_NAME).read_text()
    (tmp_path / TRIVIAL_NAME).write_text("{")
    with pytest.raises(UserError, match=r"trivial\.json: not valid JSON"):
        load_figures(tmp_path)


def test_the_terminal_warns_beside_the_front() -> None:
    records = [
        Record(name, {"method": "unet"}, state=State.COMPLETED, metrics=metrics(name))
        for name in MODELS
    ]

    def shown(remarks: dict[str, str]) -> str:
        console = Console(file=io.StringIO(), width=160)
        console.print(front_table(records, OBJECTIVES, "The front", remarks))
        return str(console.file.getvalue())  # type: ignore[attr-defined]

    assert "warning" not in shown({})
    assert "warning" not in shown({"elsewhere": "predicts nothing"})
    line = next(row for row in shown({"empty": "predicts nothing"}).splitlines() if "empty" in row)
    assert line.rstrip().endswith("predicts nothing")


def test_many_trivial_trials_are_counted() -> None:
    lines = trivial_lines({f"t{i}": "predicts nothing" for i in range(30)}, 40)
    assert len(lines) == 1
    assert lines[0].startswith("30 of 40 completed trials: predicts nothing (t0, t1,")
    assert lines[0].endswith("and 20 more).")


def test_the_terminals_front_shows_parameters_that_there_are() -> None:
    assert set(SHOWN.values()) <= set(Space(["unet"], {}).of("unet"))
