"""The report, over a run folder made from formulas: 24 trials, 2 methods, 2 failures."""

import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.distributed.run_folders import (
    MANIFEST,
    Row,
    change_study,
    rewrite,
    rows_of,
    study_of,
    write_card,
    write_run,
)  # fmt: skip
from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.report import sections as sections_package
from trustsweep.distributed.report.contents import gather
from trustsweep.distributed.report.page import render_page, write_report
from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.sections import SECTIONS, sections
from trustsweep.distributed.report.sections.images.panel import (
    CONFUSED,
    FALSE_ALARM,
    MISSED,
    error_map,
    panel,
)
from trustsweep.distributed.report.sections.importances import importances
from trustsweep.distributed.report.sections.parallel import parallel
from trustsweep.distributed.report.wording import duration, headline, number, roles
from trustsweep.distributed.run.exports import write_exports
from trustsweep.distributed.run.folder import STUDY, Run
from trustsweep.distributed.run.ledger import LEDGER
from trustsweep.distributed.statistics.front import Direction, pareto_mask

OBJECTIVES: list[tuple[str, Direction]] = [("dice_area", "max"), ("clean.ece_region", "min")]
DIRECTIONS: dict[str, Direction] = {
    **dict(OBJECTIVES), "clean.dice": "max", "attacked.dice": "max", "cost.seconds": "min",
}  # fmt: skip
NASTY = "<script>document.title='broken'</script>"
FIGURES = {
    "front",
    "hypervolume",
    "parallel",
    "importances",
    "under_attack",
    "reliability",
    "panel",
}


def trial(i: int) -> Row:
    """Trial `i` by formula: attacks buy robustness (dice_area) and cost calibration."""
    rng = np.random.default_rng(i)
    evidential, regime = i % 2 == 1, ["none", "random", "uncertain", "all"][i // 2 % 4]
    epsilon = None if regime == "none" else round(float(rng.uniform(0.002, 0.03)), 4)
    rate = float(10 ** rng.uniform(-3.5, -2))
    strength = (epsilon or 0.0) / 0.03
    dice = 0.86 - 0.06 * strength - 0.08 * abs(np.log10(rate) + 2.7) + 0.01 * rng.normal()
    area = 0.55 + 0.22 * strength - 0.1 * abs(np.log10(rate) + 2.7) + 0.015 * rng.normal()
    error = 0.05 + 0.12 * strength**1.5 + (0.0 if evidential else 0.03) + 0.01 * rng.random()
    failed, stopped = i in (5, 17), i in (8, 14, 20)
    row: Row = {
        "id": f"{i:03d}", "epochs": 2 if stopped else 0 if failed else 6, "seconds": 12.5 + i,
        "state": "failed" if failed else "stopped" if stopped else "completed",
        "reason": "loss became NaN in epoch 1" if failed else "pruned" if stopped else "",
        "config.method": "evidential-unet" if evidential else "unet", "config.regime": regime,
        "config.learning_rate": rate, "config.dice_weight": round(float(rng.random()), 3),
        "config.epsilon": epsilon, "config.kl_weight": 0.05 * (1 + i) if evidential else None,
        "config.batch_size": 16,
    }  # fmt: skip
    if not failed:
        row |= {
            "metric.dice_area": area, "metric.clean.ece_region": error, "metric.clean.dice": dice,
            "metric.attacked.dice": dice - 0.4 * (1 - strength),
            "metric.cost.seconds": 0.01 + 0.001 * i,
        }  # fmt: skip
    return row


def evaluate(run: Path, model: str, robustness: float) -> None:
    """A disc that the model finds, loses under attack, and is unsure of at its edge."""
    epsilons = [0.0, 0.005, 0.01, 0.02]
    dice = [0.85 / (1 + (1 - robustness) * 120 * e) for e in epsilons]
    centres = np.linspace(1 / 30, 29 / 30, 15)
    counts = (4e4 * np.exp(-40 * (centres * (1 - centres)))).round()
    counts[7] = 0
    bins = {
        name: {
            "confidence": centres.tolist(), "count": counts.tolist(),
            "accuracy": [float(c**bend) if n else None for c, n in zip(centres, counts)],  # noqa: B905
        }
        for name, bend in (("clean", 1.1), ("attacked@0.02", 1.1 + 2 * (1 - robustness)))
    }  # fmt: skip
    body = {
        "id": model, "metrics": {"clean.dice": dice[0]},
        "curves": {"epsilon": epsilons, "dice": dice, "iou": [d / (2 - d) for d in dice]},
        "reliability": bins,
    }  # fmt: skip
    path = write_card(run, body)
    y, x = np.mgrid[:48, :48]
    arrays: dict[str, np.ndarray] = {}
    for key, shift in (("", 0.0), ("_attacked", 7 * (1 - robustness))):
        stacks: dict[str, list[np.ndarray]] = {
            "image": [],
            "mask": [],
            "probability": [],
            "uncertainty": [],
        }
        for i in range(4):
            distance = np.hypot(y - 20 - i, x - 26 + 2 * i) - 9
            found = 1 / (1 + np.exp(np.hypot(y - 20 - i - shift, x - 26 + 2 * i - shift) - 9))
            stacks["image"].append(0.35 + 0.3 / (1 + np.exp(distance)) + 0.05 * np.sin(x + y * i))
            stacks["mask"].append(distance <= 0)
            stacks["probability"].append(found)
            stacks["uncertainty"].append(found * (1 - found))
        for name, stack in stacks.items():
            if name != "mask" or not key:
                arrays[name + (key if name != "mask" else "")] = np.array(stack, np.float16)
    np.savez(path.with_suffix(".npz"), epsilon=0.02, **arrays)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run folder."""
    study = study_of(
        dict(OBJECTIVES),
        name="synthetic",
        methods=["unet", "evidential-unet"],
        data="data/discs",
    )
    run = write_run(
        tmp_path_factory.mktemp("runs") / "synthetic", [trial(i) for i in range(24)], study
    )
    front = Run.open(run).front
    for k, member in enumerate(front):
        evaluate(run, member.id, k / max(1, len(front) - 1))
    return run


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="session")
def page(finished: Path) -> str:
    return write_report(Run.open(finished)).read_text(encoding="utf-8")


def test_sections_load_what_draws_and_estimates_only_when_they_need_it() -> None:
    code = (
        "import sys, trustsweep.distributed.report.page; "
        "from trustsweep.distributed.report.sections import sections; "
        "sections(); heavy = {'ray', 'torch', 'matplotlib', 'plotly', 'optuna', 'scipy'}; "
        "print(heavy & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_every_folder_is_a_section_on_the_list() -> None:
    (home,) = map(Path, sections_package.__path__)
    folders = {path.name for path in home.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders == set(SECTIONS)
    assert [section.name for section in sections()] == list(SECTIONS)
    for section in sections():
        assert (home / section.template).is_file()
        assert bool(section.figure) == (home / section.name / "figure.py").is_file()


def test_no_two_sections_write_the_same_figure_or_key(finished: Path) -> None:
    run = Run.open(finished)
    keys = []
    for section in sections():
        data = section.gather(run)
        keys += section.absent if data is None else section.payload(run, data)
    assert len(keys) == len(set(keys)) > 5
    figures = [section.figure for section in sections() if section.figure]
    assert len(figures) == len(set(figures))


class Ages(Section[list[float]]):
    """How long each trial took, from outside of the repository."""

    after = "front"
    figure = "ages"
    absent: ClassVar[Mapping[str, Any]] = {"ages": []}
    files: ClassVar[Mapping[str, str]] = {
        "page.html.j2": "<section><h2>Ages of {{ data | length }}</h2>{% include 'ages/more.j2' %}"
        "{% from 'macros.html.j2' import plot %}{{ plot('ages', 'Seconds') }}</section>",
        "more.j2": "<p>{{ run.study.name }} & {{ data[0] | duration }}</p>",
        "script.js": "draw(document.getElementById('ages'), [{ y: REPORT.ages }], {});\n",
    }

    def gather(self, run: Run) -> list[float] | None:
        return [trial.seconds for trial in run.completed] or None

    def payload(self, run: Run, data: list[float]) -> dict[str, Any]:
        return {"ages": data}

    def draw(self, run: Run, data: list[float]) -> Figure:
        figure = Figure()
        figure.subplots().plot(data)
        return figure


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sections from outside, in place of any other such."""

    def register(**kinds: type) -> None:
        monkeypatch.setattr(SECTIONS, "_added", kinds)

    return register


def test_a_section_from_outside_has_its_place_script_and_figure(
    copy: Path, page: str, outside: Callable[..., None]
) -> None:
    outside(ages=Ages)
    names = [section.name for section in sections()]
    assert names == ["front", "ages", *list(SECTIONS)[1:-1]]
    text = write_report(Run.open(copy)).read_text(encoding="utf-8")
    assert f"<h2>Ages of {len(Run.open(copy).completed)}</h2>" in text
    assert "<p>synthetic & 12 s</p>" in text
    assert "(() => {\ndraw(document.getElementById('ages')" in text
    payload = json.loads(text.split('id="report-data">')[1].split("</script>")[0])
    assert payload["ages"] == [trial.seconds for trial in Run.open(copy).completed]
    assert (copy / "figures" / "ages.png").read_bytes().startswith(b"\x89PNG")
    outside()
    assert render_page(Run.open(copy)) == render_page(Run.open(copy)) != text
    assert "Ages of" not in render_page(Run.open(copy))


def test_a_folder_of_a_package_is_a_section(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: Callable[..., None]
) -> None:
    home = tmp_path / "beyond_sections"
    home.mkdir()
    (home / "__init__.py").write_text(
        "from trustsweep.distributed.report.section import Section\n\n\n"
        "class Beyond(Section):\n    def gather(self, run):\n        return run.study.name\n"
    )
    (home / "page.html.j2").write_text("<section>Beyond {{ data }}</section>")
    (home / "script.js").write_text("const beyond = 1;\n")
    monkeypatch.syspath_prepend(tmp_path)
    outside(beyond=importlib.import_module("beyond_sections").Beyond)
    text = render_page(Run.open(copy))
    # Without a place of its own, it is the last.
    assert text.index("<section>Beyond synthetic</section>") > text.rindex('id="trials-title"')
    assert "(() => {\nconst beyond = 1;\n})();" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"after": "fornt"}, "'ages': comes after 'fornt'.*did you mean 'front'"),
        ({"after": "ages"}, "'ages': comes after 'ages', and there is no such section"),
        ({"figure": "front"}, "its figure 'front' is that of 'front'"),
        ({"payload": lambda self, run, data: {"trials": data}}, "payload has 'trials'"),
    ],
    ids=["unknown", "circle", "figure", "key"],
)
def test_a_section_that_gets_in_the_way_of_another_is_refused(
    copy: Path, outside: Callable[..., None], changes: dict[str, Any], words: str
) -> None:
    outside(ages=type("Ages", (Ages,), changes))
    with pytest.raises(UserError, match=words):
        render_page(Run.open(copy))


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.cdata_elem:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_is_one_file_that_refers_to_nothing_outside(page: str) -> None:
    elements = Elements(page).found
    for _, attributes in elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not {tag for tag, _ in elements} & {"link", "iframe", "object", "embed", "base"}
    policy = next(a["content"] for t, a in elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_has_words_and_every_figure_a_label(page: str) -> None:
    elements = Elements(page).found
    pictures = [a for t, a in elements if t == "img"]
    assert len(pictures) == 3 * 3 * 9
    assert all(a["alt"] for a in pictures)
    figures = [a for _, a in elements if a.get("role") == "img"]
    assert len(figures) == 7
    assert all(a["aria-label"] for a in figures)


def test_figures_are_png_of_a_useful_size(finished: Path, page: str) -> None:
    found = {path.stem for path in (finished / "figures").glob("*.png")}
    assert found == FIGURES
    for name in FIGURES:
        with Image.open(finished / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 300
            assert np.asarray(picture.convert("L")).std() > 2


def test_headline_tells_the_counts_and_both_ends(finished: Path) -> None:
    run = Run.open(finished)
    told = headline(run)
    assert told[0] == "24 trials: 19 completed, 3 stopped, 2 failed."
    best = max(run.front, key=lambda t: t.metrics["dice_area"])
    assert told[2].startswith(f"Best dice_area: trial {best.id}, with dice_area ")
    calmest = min(run.front, key=lambda t: t.metrics["clean.ece_region"])
    gained = best.metrics["dice_area"] - calmest.metrics["dice_area"]
    assert f"best clean.ece_region to the best dice_area gains {number(gained)} of" in told[-1]
    assert roles(run)[best.id] == "best dice_area"
    assert roles(run)[run.front[len(run.front) // 2].id] == "in between"


def test_exports_are_written_and_never_read(copy: Path) -> None:
    run = Run.open(copy)
    write_exports(run)
    before = render_page(run)
    for name in ("trials.csv", "front.csv", "hypervolume.csv", "summary.json"):
        (copy / name).write_text("nonsense")
    run = Run.open(copy)
    assert len(run.front) >= 5
    table = [[t.metrics[n] for n, _ in OBJECTIVES] for t in run.completed]
    mask = pareto_mask(table, [d for _, d in OBJECTIVES])
    members = {t.id for t, member in zip(run.completed, mask, strict=True) if member}
    assert {t.id for t in run.front} == members
    assert render_page(run) == before


def test_gathering_writes_nothing(copy: Path) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in copy.rglob("*")}

    before = files()
    gather(Run.open(copy))
    assert files() == before


def test_constraints_keep_trials_off_the_front(copy: Path) -> None:
    change_study(copy, constraints=["clean.ece_region <= 0.1"])
    run = Run.open(copy)
    assert run.front
    assert all(t.metrics["clean.ece_region"] <= 0.1 for t in run.front)
    assert "clean.ece_region &lt;= 0.1" in render_page(run)


def test_failed_trials_stand_in_the_table_with_their_reason(page: str) -> None:
    text = Elements(page).text
    assert text.count("loss became NaN in epoch 1") == 2
    assert "trustsweep sweep study.yaml" in text
    assert "A. Author & B. Author (2024). Discs." in text


def test_words_out_of_the_run_cannot_run(copy: Path) -> None:
    rows = rows_of(copy)
    rows[0]["config.method"] = rows[5]["reason"] = NASTY
    rows[2]["id"] = "</script>" + NASTY
    rewrite(copy, rows)
    run = Run.open(copy)
    run.write_study(run.study, dataclasses.replace(MANIFEST, name=NASTY, licence=NASTY))
    (copy / STUDY).write_text(f"{run.study_text}\n# {NASTY}")
    page = render_page(Run.open(copy))
    assert NASTY not in page
    assert page.count("<script") == Elements(page).found.count(("script", {})) + 1
    assert NASTY in Elements(page).text


def keep_trials(run: Path, ids: set[str]) -> None:
    rewrite(run, [row for row in rows_of(run) if row["id"] in ids])


def nothing_evaluated(run: Path) -> str:
    shutil.rmtree(run / "evaluation")
    return "have not been evaluated on the test split yet"


def no_arrays(run: Path) -> str:
    for path in (run / "evaluation").glob("*.npz"):
        path.unlink()
    return "No panel of test images"


def one_trial(run: Path) -> str:
    front = [t.id for t in Run.open(run).front]
    keep_trials(run, {front[0]})
    return "1 model stands on the front"


def only_failures(run: Path) -> str:
    keep_trials(run, {"005", "017"})
    return "No completed trial has every objective yet"


def no_trials(run: Path) -> str:
    keep_trials(run, set())
    return "No trial has been recorded yet"


def still_running(run: Path) -> str:
    rows = [{"id": name, "state": "running", "config.method": "unet"} for name in "ab"]
    rewrite(run, rows, closed=False)
    return "2 trials: 2 running."


def killed_between_trials(run: Path) -> str:
    rewrite(run, rows_of(run), closed=False)
    return "This run is incomplete: it is still running, or was killed."


def three_trials(run: Path) -> str:
    keep_trials(run, {"000", "001", "002"})
    return "Importances need at least 4 completed trials"


def killed_before_a_trial(run: Path) -> str:
    for path in run.iterdir():
        if path.name not in (STUDY, "manifest.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "No trial has been recorded yet"


def one_objective(run: Path) -> str:
    change_study(run, objectives=["dice_area"])
    return "1 model stands on the front of dice_area (higher is better), by validation metrics"


@pytest.mark.parametrize(
    "lessen",
    [
        nothing_evaluated, no_arrays, one_trial, only_failures, no_trials, still_running,
        killed_between_trials, killed_before_a_trial, three_trials, one_objective,
    ],
)  # fmt: skip
def test_a_run_that_lacks_something_says_so(copy: Path, lessen: Callable[[Path], str]) -> None:
    expected = lessen(copy)
    assert expected in Elements(render_page(Run.open(copy))).text


def test_a_figure_that_can_no_longer_be_drawn_is_removed(copy: Path) -> None:
    write_report(Run.open(copy))
    nothing_evaluated(copy)
    write_report(Run.open(copy))
    left = {path.stem for path in (copy / "figures").glob("*.png")}
    assert left == FIGURES - {"under_attack", "reliability", "panel"}


def test_what_cannot_be_read_is_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no run here"):
        Run.open(tmp_path / "nowhere")
    (card, *_) = (copy / "evaluation").glob("*.json")
    whole = card.read_text()
    card.write_text("{")
    with pytest.raises(UserError, match=r"evaluation/.*\.json: not valid JSON"):
        write_report(Run.open(copy))
    card.write_text(whole)
    arrays = card.with_suffix(".npz")
    arrays.write_bytes(arrays.read_bytes()[:200])
    with pytest.raises(UserError, match=r"\.npz: unreadable arrays"):
        _ = Run.open(copy).cards[card.stem].panel
    arrays.unlink()
    (copy / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"manifest\.json: unreadable manifest"):
        write_report(Run.open(copy))
    lines = (copy / LEDGER).read_text().splitlines()
    (copy / LEDGER).write_text("\n".join([*lines[:2], lines[2][:50], *lines[3:], ""]))
    with pytest.raises(UserError, match=r"ledger\.jsonl: line 3 is unreadable"):
        Run.open(copy)
    (copy / STUDY).unlink()
    with pytest.raises(UserError, match=r"no run here \(no study\.yaml\)"):
        Run.open(copy)


def test_importance_finds_the_one_parameter_that_matters(finished: Path) -> None:
    run = Run.open(finished)
    for t in run.completed:
        rate = t.config["learning_rate"]
        assert isinstance(rate, float)
        t.metrics["dice_area"] = np.log10(rate)
    told = importances(run)
    assert told is not None
    shares = told.shares["dice_area"]
    assert shares is not None
    assert told.parameters[int(np.argmax(shares))] == "learning_rate"
    assert max(shares) > 0.8
    assert sum(shares) == pytest.approx(1.0)
    assert set(told.left_out) == {"epsilon", "kl_weight"}
    assert "batch_size" not in told.parameters


def test_parallel_coordinates_keep_every_value_in_its_place(finished: Path) -> None:
    run = Run.open(finished)
    axes, lines = parallel(run)
    names = [a.name for a in axes]
    assert names[-2:] == [n for n, _ in OBJECTIVES]
    assert "batch_size" not in names
    place = np.array([line.positions for line in lines], float)
    assert np.nanmin(place) >= 0
    assert np.nanmax(place) <= 1
    for t, line in zip(run.completed, lines, strict=True):
        assert (line.positions[names.index("epsilon")] is None) == ("epsilon" not in t.config)
    areas = [t.metrics["dice_area"] for t in run.completed]
    assert (np.argsort(areas) == np.argsort(place[:, -2])).all()


def test_error_map_paints_false_alarms_and_misses() -> None:
    alarm = np.array([[False, True, False, True]])
    missed = np.array([[False, False, True, True]])
    pixels = error_map(np.zeros((1, 4), np.float32), alarm, missed)
    found = [[0, 0, 0], list(FALSE_ALARM), list(MISSED), list(CONFUSED)]
    assert pixels.tolist() == [found]


def test_panel_rows_hold_nine_pictures_on_one_scale(finished: Path) -> None:
    run = Run.open(finished)
    shown = panel(run.spotlight[0])
    assert shown is not None
    assert shown.epsilon == pytest.approx(0.02)
    assert [len(row.clean) + len(row.attacked) + 1 for row in shown.rows] == [9, 9, 9]
    assert "Dice 1.00" in shown.rows[0].clean[1].alt
    assert run.spotlight[0].id == run.front[0].id
    assert run.spotlight[-1].id == run.front[-1].id


def test_a_panel_with_missing_arrays_is_refused(finished: Path) -> None:
    evaluation = Run.open(finished).spotlight[0]
    del evaluation.panel["mask"]
    with pytest.raises(UserError, match="needs image, mask"):
        panel(evaluation)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.012345, "0.0123"), (12.0, "12"), (1234.5, "1,234"), (5e-7, "5e-07")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text.replace(",", "\u202f")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (59.6, "1 min"), (75.0, "1 min 15 s"), (3600.0, "1 h"), (90061.0, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def rendered(path: Path, fragment: str, profile: Path) -> str:
    """The page's document after its scripts have run, as Chromium sees it."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom",
        f"{path.resolve().as_uri()}#{fragment}",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return result.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(
    ("x", "y"),
    [("clean.ece_region", "attacked.dice"), ("cost.seconds", "clean.ece_region")],
)  # fmt: skip
def test_the_browser_works_out_the_front_of_any_pair(
    finished: Path, page: str, tmp_path: Path, x: str, y: str
) -> None:
    run = Run.open(finished)
    table = [[t.metrics[x], t.metrics[y]] for t in run.completed]
    mask = pareto_mask(table, [DIRECTIONS[x], DIRECTIONS[y]])
    members = {t.id for t, member in zip(run.completed, mask, strict=True) if member}
    document = rendered(finished / "report.html", f"x={x}&y={y}", tmp_path)
    told = re.search(r'id="front-result"[^>]*>Front of ([^<]*)<', document)
    assert told is not None
    head, listed = re.fullmatch(r"(.*) \((.*)\)\.", told[1]).groups()  # type: ignore[union-attr]
    assert head == f"{x} against {y} on validation: {len(members)} of 19 trials"
    assert set(listed.split(", ")) == members
    # Every figure was drawn: the policy let our scripts run.
    assert document.count('class="main-svg"') >= 8
    assert "24 of 24 shown" in document
