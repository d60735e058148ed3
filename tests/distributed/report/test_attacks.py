"""Attacks and signs of gradient masking on page and terminal, from cards of evaluated models."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from rich.console import Console

from tests.distributed.report.test_page import CHROMIUM, Elements, rendered
from tests.distributed.report.test_trivial import payload
from tests.distributed.run_folders import rewrite, rows_of, write_run
from tests.distributed.sweep.test_test_evaluation import evaluated, study_of
from trustsweep.data_pipelines.schema import Manifest, TaskName
from trustsweep.distributed.report.evaluated import search_curves
from trustsweep.distributed.report.page import render_page, write_report
from trustsweep.distributed.report.palette import WARNING
from trustsweep.distributed.report.sections.attacks import READINGS, attacks
from trustsweep.distributed.report.wording import attack_lines, gap_number, headline, number, roles
from trustsweep.distributed.run.folder import MASKED, Run
from trustsweep.distributed.run.ledger import Record, State
from trustsweep.distributed.run.optimism import front_estimates
from trustsweep.distributed.statistics.front import Objective
from trustsweep.distributed.sweep.progress import front_table, on_test_table
from trustsweep.trainables.attacks.masking import SIGNS
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.metrics.catalog import all_names, under_attack

OBJECTIVES = [Objective("dice_lesion_area", "max"), Objective("clean.ece_region", "min")]
ASK = "--set evaluation.final=full"
Card = dict[str, Any]
Edit = Callable[[Card], None]


def evaluated_run(data: Path, run: Path, **evaluation: Any) -> Path:
    """A U-Net as it was initialised, evaluated on the test split, in the run of a single trial."""
    names = [o.name for o in OBJECTIVES]
    card, _ = evaluated(data, run, "unet", evaluation, objectives=names)
    row = {"id": "model", "epochs": 1, "seconds": 1.0, "config.method": "unet"}
    row |= {f"metric.{name}": card["metrics"].get(name, 0.5) for name in names}
    return write_run(run, [row], study_of("unet", evaluation, names), Manifest.load(data))


@pytest.fixture(scope="module")
def full(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("full")
    return evaluated_run(phantoms, run, epsilons=[0, 0.01, 0.02], attack_steps=1)


@pytest.fixture(scope="module")
def fast(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("fast")
    return evaluated_run(phantoms, run, epsilons=[0, 0.02], attack_steps=1, final="fast")


@pytest.fixture
def edited(full: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """A copy of the fully evaluated run, with its card changed."""

    def change(edit: Edit) -> Path:
        run = Path(shutil.copytree(full, tmp_path / "run"))
        path = run / "evaluation" / "model.json"
        card = json.loads(path.read_text())
        edit(card)
        path.write_text(json.dumps(card))
        return run

    return change


def signs(*names: str) -> Edit:
    def edit(card: Card) -> None:
        card["attack"]["masking"]["signs"] = {name: SIGNS[name] for name in names}

    return edit


def card_of(run: Path) -> Card:
    return dict(json.loads((run / "evaluation" / "model.json").read_text()))


def text_of(run: Path) -> str:
    return Elements(render_page(Run.open(run))).text


def printed(*parts: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    for part in parts:
        console.print(part)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_report_knows_every_sign() -> None:
    assert list(READINGS) == list(SIGNS)


@pytest.mark.parametrize("task", list(TaskName))
def test_metrics_under_attack_are_those_that_clean_data_do_not_have(task: TaskName) -> None:
    cells = [("gaussian-noise", 3)]
    without = set(all_names(EvaluationPlan(corruptions=cells), task))
    for name in all_names(EvaluationPlan(epsilons=(0.0, 0.01), corruptions=cells), task):
        assert under_attack(name) == (name not in without), name


def test_both_attacks_stand_there_with_all_their_settings(full: Path) -> None:
    told = attacks(Run.open(full))
    assert told is not None
    assert told.full
    (settings,) = told.settings
    assert settings.models == ["model"]
    assert len(settings.final) > len(settings.search) == 1
    page = text_of(full)
    assert "Attacks L∞ norm, ε = 0.01, 0.02 on the [0, 1] pixel scale." in page
    for member in [*settings.search, *settings.final]:
        row = [member[key] for key in ("name", "steps", "restarts", "draws")]
        row += [number(member["gradients"]), number(member["queries"]), member["attacks"]]
        assert " ".join(map(str, row)) in page
    assert ASK not in page
    assert "pip install" not in page


def test_the_gap_is_between_figures_of_the_same_images(full: Path) -> None:
    run, card = Run.open(full), card_of(full)
    told = attacks(run)
    assert told is not None
    (model,) = told.models
    assert {"dice_lesion_area", "attacked@0.02.dice_lesion"} <= model.gaps.keys()
    assert "attacked@0.01.dice_lesion" not in model.gaps
    for name, gap in model.gaps.items():
        assert gap.full == card["metrics"][name]
        assert gap.value == pytest.approx(card["attack"]["gap"][name])
    split = card["estimates"]["test"]
    gap = model.gaps["dice_lesion_area"]
    assert gap.search == pytest.approx(split["figures"]["dice_lesion_area"]["value"])
    assert gap.full == pytest.approx(split["final"]["dice_lesion_area"]["value"])
    shown = f"{gap_number(gap.value)} {number(gap.search)} to {number(gap.full)}"
    assert shown in text_of(full)
    (sentence,) = (s for s in headline(run) if "Under the attack of the search (fast)" in s)
    assert f"dice_lesion_area by {gap.value:.3f} on average, {gap.value:.3f} at most." in sentence
    assert sentence in attack_lines(run)


def test_curves_of_the_search_lie_above_those_of_the_full_attack_at_first(full: Path) -> None:
    """Within a larger ε each attack goes on from its own images within the smaller one."""
    evaluation = Run.open(full).cards["model"]
    found = search_curves(evaluation)
    assert found.keys() == evaluation.curves.keys() - {"epsilon"}
    for leaf, values in found.items():
        assert values[0] == evaluation.curves[leaf][0]
        # The harm that an ensemble keeps the worst of is that to Dice.
        if leaf.startswith("dice"):
            assert values[1] >= evaluation.curves[leaf][1] - 1e-9
    (drawn,) = payload(render_page(Run.open(full)))["evaluations"]
    assert drawn["searched"]["dice"] == pytest.approx(found["dice"], abs=1e-5)


def test_signs_stand_there_with_what_they_are_read_off(edited: Callable[[Edit], Path]) -> None:
    run = edited(signs("black-box"))
    masking = card_of(run)["attack"]["masking"]
    assert list(masking["meanings"].items()) == list(SIGNS.items())
    page = text_of(run)
    for meaning in SIGNS.values():
        assert meaning in page
    figures = {name: f"{value:.2f}" for name, value in masking["figures"].items()}
    once = f"{figures['single_step']} after one step, {figures['many_steps']} after many"
    assert f"not set {once}" in page
    assert f"set {figures['black_box']} without gradients, {figures['many_steps']} with" in page
    assert f"{100 * masking['figures']['no_ascent']:.0f} % of samples" in page
    assert f"on {masking['samples']} test samples" in page
    assert "within ε = 0.02." in page


def test_a_model_with_a_sign_is_marked_wherever_the_front_is_shown(
    edited: Callable[[Edit], Path],
) -> None:
    path = edited(signs("black-box", "zero-gradient"))
    (row,) = rows_of(path)
    rewrite(path, [{**row, "metric.clean.empty_share": 1.0}])
    run = Run.open(path)
    words = f"{MASKED}: {SIGNS['black-box']}; {SIGNS['zero-gradient']}"
    assert run.masked == {"model": words}
    short = f"{MASKED} (black-box, zero-gradient)"
    assert run.warnings == {"model": f"predicts nothing; {short}"}
    assert roles(run)["model"].endswith(MASKED)
    assert any(s.endswith(f"{short}.") for s in headline(run))
    told = f"{SIGNS['black-box']}; {SIGNS['zero-gradient']}"
    counted = f"Signs of gradient masking in 1 of 1 model of the front: model ({told})."
    assert counted in attack_lines(run)
    page = render_page(Run.open(path))
    badge = next(r for r in page.split("<tr ") if r.startswith("data-state"))
    assert f'<span class="badge warn">{words}</span>' in badge
    assert "A triangle around a mark" in Elements(page).text
    assert payload(page)["trials"]["masked"] == [words]
    record = Record(
        "model", {"method": "unet"}, state=State.COMPLETED, metrics=run.front[0].metrics
    )
    table = printed(front_table([record], OBJECTIVES, "The front", run.warnings))
    assert "warning" in table
    assert short in " ".join(table.split())


def has_warning_colour(path: Path) -> bool:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    wanted = np.rint(np.array(to_rgb(WARNING)) * 255).astype(int)
    return bool((np.abs(pixels - wanted).max(axis=-1) <= 2).any())


def test_the_drawn_front_marks_it_and_no_other(edited: Callable[[Edit], Path]) -> None:
    path = edited(signs("no-ascent"))
    write_report(Run.open(path))
    assert has_warning_colour(path / "figures" / "front.png")
    card = card_of(path)
    signs()(card)
    (path / "evaluation" / "model.json").write_text(json.dumps(card))
    page = write_report(Run.open(path)).read_text(encoding="utf-8")
    assert not has_warning_colour(path / "figures" / "front.png")
    assert payload(page)["trials"]["masked"] == [""]
    assert MASKED not in Elements(page).text
    assert Run.open(path).masked == {}


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_browser_draws_the_mark(edited: Callable[[Edit], Path], tmp_path: Path) -> None:
    page = write_report(Run.open(edited(signs("more-steps"))))
    document = rendered(page, "", tmp_path / "profile")
    assert f">{MASKED}</text>" in document
    assert ">the same under the attack of the search</text>" in document


def test_figures_under_the_full_attack_have_a_column_of_their_own(full: Path) -> None:
    run, card = Run.open(full), card_of(full)
    found = {estimate.objective.name: estimate for estimate in front_estimates(run)}
    area, ece = found["dice_lesion_area"], found["clean.ece_region"]
    split = card["estimates"]["test"]
    assert area.test.value == split["figures"]["dice_lesion_area"]["value"]
    assert area.full.value == split["final"]["dice_lesion_area"]["value"]
    assert area.full.low <= area.full.value <= area.full.high
    assert area.optimism == pytest.approx(area.validation.value - area.test.value)
    assert area.quoted is area.full
    assert not ece.attacked
    assert ece.quoted is ece.test
    page = text_of(full)
    assert "validation test optimism test, full attack" in page
    assert "both under the attack of the search" in page
    assert f"dice_lesion_area {number(area.full.value)} (95 %: " in page
    assert "under the full attack and clean.ece_region" in page
    table = printed(on_test_table(list(found.values())))
    assert "test, full attack" in table
    assert f"{area.full.value:.4f}" in table
    tests = payload(render_page(Run.open(full)))["tests"]["model"]
    wanted = [area.full.value, area.full.low, area.full.high]
    assert tests["dice_lesion_area"] == pytest.approx(wanted, abs=1e-5)


def test_an_attacked_figure_without_an_interval_is_not_taken_for_the_searchs(
    edited: Callable[[Edit], Path],
) -> None:
    """Bare metrics of a card are under the full attack: optimism must not compare with them."""

    def without_intervals(card: Card) -> None:
        del card["estimates"]

    (area, ece) = front_estimates(Run.open(edited(without_intervals)))
    assert math.isnan(area.test.value)
    assert math.isnan(area.optimism)
    assert area.full.value == area.validation.value  # as `evaluated_run` wrote it
    assert math.isfinite(ece.test.value)


def test_judged_by_the_attack_of_the_search_alone_is_said_plainly(fast: Path) -> None:
    run = Run.open(fast)
    told = attacks(run)
    assert told is not None
    assert not told.full
    assert told.compared == []
    assert search_curves(run.cards["model"]) == {}
    only = "only under the attack of the search (fast)"
    assert any(ASK in line and only in line for line in attack_lines(run))
    page = text_of(fast)
    assert "This front was evaluated only under the attack of the search" in page
    assert page.count(ASK) == 2  # in the section, and at the head of the page
    assert "Signs of gradient masking" in page
    assert "full attack" not in page.replace("For the full attack", "")
    assert "test, full attack" not in printed(on_test_table(front_estimates(run)))


def test_what_was_left_out_is_named_with_how_to_have_it(edited: Callable[[Edit], Path]) -> None:
    def edit(card: Card) -> None:
        card["attack"]["left_out"] = ["fab"]

    run = edited(edit)
    assert any("without fab: torchattacks is not" in line for line in attack_lines(Run.open(run)))
    page = text_of(run)
    assert "Left out because torchattacks is not installed: fab." in page
    assert "pip install --no-deps torchattacks==3.5.1" in page


def test_models_attacked_in_other_ways_have_settings_of_their_own(
    edited: Callable[[Edit], Path],
) -> None:
    path = edited(signs())
    other = card_of(path) | {"id": "other"}
    for member in other["attack"]["search"]:
        member["draws"] = 4
    (path / "evaluation" / "other.json").write_text(json.dumps(other))
    (row,) = rows_of(path)
    rewrite(path, [row, {**row, "id": "other"}])
    told = attacks(Run.open(path))
    assert told is not None
    assert [s.models for s in told.settings] == [["model"], ["other"]]
    page = text_of(path)
    assert "Settings for model" in page
    assert "Settings for other" in page


def test_without_attacks_there_is_no_such_section(phantoms: Path, tmp_path: Path) -> None:
    run = evaluated_run(phantoms, tmp_path, epsilons=[0])
    assert attacks(Run.open(run)) is None
    assert attack_lines(Run.open(run)) == []
    page = render_page(Run.open(run))
    assert 'id="attacks-title"' not in page
    assert MASKED not in Elements(page).text


def test_gaps_have_a_sign_and_three_decimals() -> None:
    told = [gap_number(gap) for gap in (0.0123, -0.2, 0.0, 4e-4, -4e-4, math.nan)]
    assert told == ["+0.012", "-0.200", "0", "0", "0", ""]
