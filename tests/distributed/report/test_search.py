"""What the report makes of seeds, early stopping, costs, kills and very long runs."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed import run_folders
from tests.distributed.run_folders import Row, study_of, write_card
from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.report.page import render_page, write_report
from trustsweep.distributed.report.sections.cost import costs
from trustsweep.distributed.report.sections.hypervolume import growth
from trustsweep.distributed.report.sections.images.class_panel import class_panel
from trustsweep.distributed.report.sections.seeds import findings, staircases
from trustsweep.distributed.report.sections.stopped import stops
from trustsweep.distributed.report.thinning import MOST_ROWS, evenly, thinned
from trustsweep.distributed.report.wording import unfinished
from trustsweep.distributed.run.comparison import repeats
from trustsweep.distributed.run.evaluation_card import EvaluationCard
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import Ledger
from trustsweep.distributed.statistics.front import Direction, pareto_mask

OBJECTIVES: dict[str, Direction] = {"auroc_area": "max", "clean.ece": "min"}
SCHEDULER = {"policy": "forecast", "rungs": [0.125, 0.25, 0.5]}


def trial(i: int, state: str = "completed", **more: Any) -> Row:
    """Trial `i` by formula; it takes i + 1 seconds, one after the other."""
    rng = np.random.default_rng(i)
    epochs = {"completed": 16, "stopped": 4, "failed": 1, "running": 0}[state]
    row: Row = {
        "id": f"t{i:05d}", "number": i, "stage": "search", "of": "", "state": state, "reason": "",
        "dominated_by": (), "epochs": epochs, "seconds": i + 1.0,
        "ended": 0.0 if state == "running" else (i + 1) * (i + 2) / 2,
        "config.learning_rate": float(rng.uniform(1e-3, 1e-2)), "config.epochs": 16,
        "config.seed": 0,
    }  # fmt: skip
    if state in ("completed", "stopped"):
        height = float(rng.random())
        row |= {
            "metric.auroc_area": 0.5 + 0.4 * height,
            "metric.clean.ece": 0.3 * height**2 + 0.1 * float(rng.random()),
            "metric.cost.seconds": i + 1.0, "metric.cost.images": 10.0 * epochs,
            "metric.cost.peak_memory": 100.0 + i,
        }  # fmt: skip
    return row | more


def repeat(row: Row, seed: int, **more: Any) -> Row:
    """The model of `row` under another seed."""
    name = f"{row['id']}-{seed}"
    return {**row, "id": name, "stage": "seeds", "of": row["id"], "config.seed": seed, **more}


def write_run(folder: Path, rows: list[Row], *, closed: bool = True, **study: Any) -> Path:
    """A run folder of those trials."""
    search = {"trials": max(1, len(rows)), "scheduler": SCHEDULER}
    asked = study_of(OBJECTIVES, search=search, **study)
    return run_folders.write_run(folder, rows, asked, closed=closed)


def text_of(run: Path) -> str:
    """The words of the report's page, without its scripts."""
    page = render_page(Run.open(run))
    page = re.sub(r"<(script|style)[^>]*>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_stopped_trials_are_told_by_rung_with_what_beat_them(tmp_path: Path) -> None:
    stopped = [
        trial(4, "stopped", epochs=2, dominated_by=("t00001", "t00002"), reason="no hope left"),
        trial(5, "stopped", epochs=8, dominated_by=("t00001",)),
        trial(6, "stopped", epochs=3),
    ]
    run = write_run(tmp_path / "run", [*(trial(i) for i in range(4)), *stopped])
    told = stops(Run.open(run))
    assert [stop.rung for stop in told.stops] == [0, 2, None]
    assert told.by_rung == [(0, 1), (2, 1), (None, 1)]
    assert told.dominators == [("t00001", 2), ("t00002", 1)]
    assert (told.trained, told.full) == (4 * 16 + 2 + 8 + 3, 7 * 16)
    page = text_of(run)
    assert "3 of 7 trials were stopped before their end by the policy “forecast”" in page
    assert "69 % of the full cost" in page
    assert "no hope left" in page
    assert not {t.id for t in Run.open(run).front} & {row["id"] for row in stopped}


def test_costs_add_up_by_stage_and_the_peak_does_not(tmp_path: Path) -> None:
    rows = [trial(0), trial(1, "stopped"), trial(2, "failed"), trial(3), repeat(trial(0), 1)]
    found = {cost.name: cost for cost in costs(Run.open(write_run(tmp_path / "run", rows)))}
    seconds, peak = found["cost.seconds"], found["cost.peak_memory"]
    assert (seconds.search, seconds.seeds, seconds.trials) == (1 + 2 + 4, 1.0, 4)
    assert (peak.search, peak.seeds) == (103.0, 100.0)


def test_the_hypervolume_is_told_against_what_all_trials_had_cost(tmp_path: Path) -> None:
    rows = [trial(0), trial(1, "stopped"), trial(2, "failed"), trial(3)]
    told = growth(Run.open(write_run(tmp_path / "run", rows)))
    assert told.spent["trials finished"] == [1.0, 2.0]
    assert told.spent["seconds since the start"] == [1.0, 10.0]
    assert told.spent["cost.seconds, all trials together"] == [1.0, 1.0 + 2.0 + 4.0]
    assert told.spent["cost.images, all trials together"] == [160.0, 160.0 + 40.0 + 160.0]


def test_trials_without_costs_are_told_by_number_and_time(tmp_path: Path) -> None:
    rows = [{k: v for k, v in trial(i).items() if "cost" not in k} for i in range(3)]
    run = write_run(tmp_path / "run", rows)
    spent = growth(Run.open(run)).spent
    assert spent == {
        "trials finished": [1.0, 2.0, 3.0],
        "seconds since the start": [1.0, 3.0, 6.0],
    }
    assert "No costs recorded" in text_of(run)


def seeded(folder: Path, *, shift: float, baseline: bool = True) -> Path:
    """One model under three seeds, and a baseline that is `shift` worse in the first objective."""
    model = trial(0, **{"metric.auroc_area": 0.8, "metric.clean.ece": 0.1})
    rows = [model]
    # 0, the search's own seed, is none of the three.
    study = {"seeds": 3, "baseline": {"learning_rate": 0.0005} if baseline else None}
    references = study_of(OBJECTIVES, **study).references()
    config = {f"config.{k}": v for k, v in references.get("baseline", {}).items()}
    for seed, noise in enumerate((0.0, 0.011, -0.012), start=1):
        rows.append(repeat(model, seed, **{"metric.auroc_area": 0.8 + noise}))
        base = {"metric.auroc_area": 0.8 - shift + 0.9 * noise, "metric.clean.ece": 0.1}
        if baseline:
            rows.append(repeat({**trial(1, id="b"), **config}, seed, **base, of="baseline"))
    return write_run(folder, rows, **study)


@pytest.mark.parametrize(
    ("shift", "sentence"),
    [
        (0.1, "auroc_area: 1 better."),
        (-0.1, "auroc_area: 1 worse; none is shown to be better."),
        (
            0.0005,
            "auroc_area: 1 with no difference shown; none is shown to be better.",
        ),
    ],
)
def test_findings_are_said_whichever_way_they_go(
    tmp_path: Path, shift: float, sentence: str
) -> None:
    run = seeded(tmp_path / "run", shift=shift)
    told = findings(repeats(Run.open(run)))
    assert sentence in told
    assert "clean.ece: 1 tied; none is shown to be better." in told
    page = text_of(run)
    assert sentence in page
    assert "validation metrics, by which the front was chosen" in page
    assert "The seed of the search is not among them" in page


def test_without_a_baseline_the_page_says_how_to_name_one(tmp_path: Path) -> None:
    page = text_of(seeded(tmp_path / "run", shift=0.0, baseline=False))
    assert "Name one in the study, such as baseline: {method: unet}" in page.replace("  ", " ")
    assert "0.8 ± 0.012 n = 3" in page


def test_a_study_whose_seeds_are_still_to_come_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [trial(0)], seeds=5)
    assert "have not been trained under the study's 5 seeds yet" in text_of(run)
    run = write_run(tmp_path / "one", [trial(0)])
    assert "No model was trained again" in text_of(run)


def test_staircases_run_from_end_to_end_of_the_models_box(tmp_path: Path) -> None:
    stairs = staircases(repeats(Run.open(seeded(tmp_path / "run", shift=0.1))))
    assert [s.seeds for s in stairs] == [1, 2, 3]
    # One model: a corner at the seed's figure, the attained area to its left and above.
    assert [s.x[1] for s in stairs] == pytest.approx([0.811, 0.8, 0.788])
    assert len({s.x[0] for s in stairs} | {s.y[-1] for s in stairs}) == 2
    assert all(s.x[0] < min(s.x[1:]) and s.y[-1] > 0.1 for s in stairs)


def test_a_figure_that_is_missing_leaves_the_staircases_whole(tmp_path: Path) -> None:
    run = seeded(tmp_path / "run", shift=0.1)
    for name, ece in (("t00000-1", 0.1), ("t00000-2", float("nan")), ("t00000-3", 0.2)):
        write_card(run, {"id": name, "metrics": {"auroc_area": 0.8, "clean.ece": ece}})
    stairs = staircases(repeats(Run.open(run)))
    assert [s.seeds for s in stairs] == [1, 2]
    assert np.isfinite([s.x + s.y for s in stairs]).all()


def test_a_run_that_did_not_reach_its_end_says_how_to_go_on(tmp_path: Path) -> None:
    rows = [trial(0), trial(1, "running"), trial(2, "running")]
    run = write_run(tmp_path / "a run", rows, closed=False)
    page = text_of(run)
    assert "still running, or was killed. 2 trials unfinished: t00001, t00002." in page
    assert f"trustsweep sweep --resume &#39;{run}&#39;" in page
    assert "running, unfinished" in page
    Ledger(run).close(7.0, "the disk is full")
    assert "This run was interrupted: the disk is full." in text_of(run)
    assert unfinished(Run.open(write_run(tmp_path / "whole", [trial(0)]))) == []


def arrays(**more: Any) -> dict[str, np.ndarray]:
    image = np.linspace(0, 0.9, 4 * 8 * 8).reshape(4, 8, 8).astype(np.float16)
    right = np.array([[0.1, 0.9]] * 4, np.float32)
    return {
        "image": image, "image_attacked": image + np.float16(0.02), "probability": right,
        "probability_attacked": right[:, ::-1], "uncertainty": np.full(4, 0.2, np.float32),
        "uncertainty_attacked": np.full(4, 0.6, np.float32), "label": np.array([1, 0, 1, 1]),
        "epsilon": np.array(0.02), **more,
    }  # fmt: skip


def card(folder: Path, **more: Any) -> EvaluationCard:
    path = write_card(folder, {"id": "m", "classes": ["normal", "pneumonia"]})
    np.savez(path.with_suffix(".npz"), **arrays(**more))  # type: ignore[arg-type]
    return EvaluationCard.read(path)


def test_classes_are_shown_as_answers_clean_and_attacked(tmp_path: Path) -> None:
    shown = class_panel(card(tmp_path))
    assert shown is not None
    assert len(shown.rows) == 3
    first, second = shown.rows[:2]
    assert (first.truth, first.answer.name, first.answer.right) == ("pneumonia", "pneumonia", True)
    assert (first.attacked.answer.name, first.attacked.answer.right) == ("normal", False)
    assert (second.answer.right, second.attacked.answer.right) == (False, True)
    # Every pixel was moved up by all of ε: the brightest colour throughout.
    assert np.ptp(first.attacked.moved.pixels.reshape(-1, 3), axis=0).max() <= 2


def test_a_class_panel_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="each with as many rows"):
        class_panel(card(tmp_path, uncertainty=np.zeros(2)))


def test_a_run_of_classifiers_has_its_own_curves_and_answers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [trial(i) for i in range(3)])
    best = Run.open(run).front[0].id
    curves = {"epsilon": [0.0, 0.02], "accuracy": [0.9, 0.5], "auroc": [0.95, 0.6]}
    write_card(run, {"id": best, "classes": ["normal", "pneumonia"], "curves": curves})
    np.savez(run / "evaluation" / f"{best}.npz", **arrays())  # type: ignore[arg-type]
    page = text_of(run)
    assert "pneumonia right probability 0.9 uncertainty 0.2" in page
    assert "dice" not in page.lower()
    write_report(Run.open(run))
    assert {"under_attack", "panel"} <= {p.stem for p in (run / "figures").glob("*.png")}


def test_thinning_keeps_both_ends_and_what_it_must(tmp_path: Path) -> None:
    assert evenly(range(10), 4) == [0, 3, 6, 9]
    trials = Run.open(write_run(tmp_path / "run", [trial(i) for i in range(20)])).trials
    kept = [t.id for t in thinned(trials, 6, {"t00007", "t00011"})]
    assert kept == sorted(kept)
    assert len(kept) == 6
    assert {"t00000", "t00007", "t00011", "t00019"} <= set(kept)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.slow
def test_a_run_of_ten_thousand_trials_still_opens(tmp_path: Path) -> None:
    single = [f"metric.corrupted@noise-{s}.auroc" for s in range(1, 60)]
    states = np.random.default_rng(0).choice(["completed", "stopped", "failed"], 10_000)
    rows = [trial(i, str(s), **dict.fromkeys(single, 0.123456789)) for i, s in enumerate(states)]
    run = write_run(tmp_path / "run", rows)
    found = Run.open(run)
    page = write_report(found)
    text = page.read_text(encoding="utf-8")
    assert len(text) < 15e6
    assert text.count("<tr data-state") == MOST_ROWS
    assert f"{MOST_ROWS} of 10000 trials" in text
    assert "59 metrics of single corruptions" in text
    mask = pareto_mask(
        [[t.metrics[n] for n in OBJECTIVES] for t in found.completed], list(OBJECTIVES.values())
    )
    assert {t.id for t in found.front} == {
        t.id for t, on in zip(found.completed, mask, strict=True) if on
    }
    if CHROMIUM is None:
        return
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    told = re.search(r'id="front-result"[^>]*>Front of [^:]*: (\d+) of (\d+)', result.stdout)
    assert told is not None
    # Figures have six digits on the page, so that near-equal models may stand side by side.
    assert int(told[1]) == pytest.approx(int(mask.sum()), abs=3)
    assert int(told[2]) == len(found.completed)
