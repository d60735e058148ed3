"""Validation and test side by side, from a run folder written by hand: tables, page, terminal."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.distributed.run_folders import study_of, write_card, write_run
from trustsweep.distributed.report.page import render_page, write_report
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.optimism import counted, counts, front_estimates, mean_optimism
from trustsweep.distributed.sweep.progress import on_test_table

OBJECTIVES = {"dice_area": "max", "clean.ece": "min", "cost.seconds": "min"}
#: Model to (dice_area, clean.ece) on validation and on test.
FIGURES = {"a": ((0.87, 0.03), (0.70, 0.14)), "b": ((0.60, 0.01), (0.62, 0.01))}


def card(model: str, **more: Any) -> dict[str, Any]:
    dice, ece = FIGURES[model][1]
    told = {"images": 108, "patients": 40, "sites": 1}
    figures = {"dice_area": {"value": dice, "low": dice - 0.1, "high": dice + 0.05}}
    group = {
        "group": "sex", "value": "F", "images": 60, "patients": 31,
        "figures": {"clean.dice": {"value": 0.5, "low": 0.41, "high": 0.58}},
    }  # fmt: skip
    return {
        "id": model, "metrics": {"dice_area": dice, "clean.ece": ece},
        "estimates": {"val": {**told, "figures": {}}, "test": {**told, "figures": figures}},
        "groups": {"split": "test", "least": 50, "conditions": ["clean"], "rows": [group]},
        **more,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [
        {
            "id": model, "state": "completed", "reason": "", "epochs": 4, "seconds": 1.0,
            "config.method": "unet", "metric.dice_area": dice, "metric.clean.ece": ece,
            "metric.cost.seconds": 9.0,
        }
        for model, ((dice, ece), _) in FIGURES.items()
    ]  # fmt: skip
    run = write_run(tmp_path / "run", rows, study_of(OBJECTIVES))
    for model in FIGURES:
        write_card(run, card(model))
    return run


def text_of(run: Path) -> str:
    page = render_page(Run.open(run))
    body = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_optimism_goes_by_the_objectives_own_direction(run: Path) -> None:
    found = front_estimates(Run.open(run))
    told = {(c.model, c.objective.name): c.optimism for c in found}
    assert told == {
        ("a", "dice_area"): pytest.approx(0.17),
        ("a", "clean.ece"): pytest.approx(0.11),
        ("b", "dice_area"): pytest.approx(-0.02),
        ("b", "clean.ece"): pytest.approx(0),
    }  # a cost is no figure of a split
    means = mean_optimism(found)
    assert means == {"dice_area": pytest.approx(0.075), "clean.ece": pytest.approx(0.055)}
    (dice,) = (c for c in found if (c.model, c.objective.name) == ("a", "dice_area"))
    assert (dice.test.low, dice.test.high) == pytest.approx((0.6, 0.75))
    assert dice.validation.value == 0.87
    assert math.isnan(dice.validation.low)


def test_the_page_names_the_split_of_its_figures_and_shows_both(run: Path) -> None:
    page = text_of(run)
    for words in (
        "by validation metrics",
        "dice_area 0.87 and clean.ece 0.03 and cost.seconds 9 on validation; on test "
        "dice_area 0.7 (95 %: 0.6 to 0.75) and clean.ece 0.14",
        "Optimism of choosing: dice_area +0.075, clean.ece +0.055",
        "Validation and test", "0.7 0.6 to 0.75 +0.17", "108 images, 40 patients, 1 site",
        "Groups", "sex F 60 31 0.5 0.41 to 0.58", "at least 50 samples of the test split",
        "code abc+1",
    ):  # fmt: skip
        assert words in page, words
    write_report(Run.open(run))
    assert (run / "figures" / "front.png").is_file()


def test_the_terminal_says_the_same(run: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    found = Run.open(run)
    console.print(on_test_table(front_estimates(found)))
    console.print(counted(counts(found)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("On the test split", "0.8700", "0.600 to 0.750", "+0.1700", "-0.0200"):
        assert words in text, words
    assert "Validation: 108 images, 40 patients, 1 site; test: " in text


def test_a_card_without_estimates_has_figures_without_intervals(run: Path) -> None:
    for model in FIGURES:
        write_card(run, card(model, estimates={}, groups=None))
    found = front_estimates(Run.open(run))
    assert found[0].optimism == pytest.approx(-0.02)
    assert math.isnan(found[0].test.low)
    assert counts(Run.open(run)) == {}
    assert "on test dice_area 0.7 and clean.ece 0.14" in text_of(run)


def test_without_a_judged_model_only_validation_is_shown(run: Path) -> None:
    for path in (run / "evaluation").iterdir():
        path.unlink()
    assert front_estimates(Run.open(run)) == []
    page = text_of(run)
    assert "clean.ece 0.03 and cost.seconds 9 on validation." in page
    assert "Optimism" not in page
    assert "Validation and test" not in page
