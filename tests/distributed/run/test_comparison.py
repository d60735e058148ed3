"""Repeats under seeds, over run folders written by hand."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.distributed import run_folders
from tests.distributed.run_folders import Row, rewrite, rows_of, study_of, write_card
from trustsweep.distributed.run.comparison import (
    ATTAINMENT,
    COMPARISON,
    Repeats,
    repeats,
    write_comparison,
)
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.statistics.inference import holm

OBJECTIVES = {"dice_area": "max", "clean.ece": "min"}
#: Seed to figures of one model: (dice_area, clean.ece), or None where training failed.
Figures = dict[int, tuple[float, float] | None]
#: The seed of the search, and what it flatters every model of the front by in the first objective.
OWN, FLATTERY = 99, 0.3
BASE = np.random.default_rng(3).normal((0.6, 0.10), (0.01, 0.01), (5, 2))


def figures(shift: tuple[float, float], spread: float = 0.002) -> Figures:
    """The baseline's figures moved by `shift`, with noise."""
    noise = np.random.default_rng(7).normal(0, spread, BASE.shape)
    return {s: tuple(row) for s, row in enumerate((BASE + shift + noise).tolist())}  # type: ignore[misc]


def write_run(
    folder: Path,
    models: dict[str, Figures],
    *,
    test: float | None = 0.0,
    seeds: int = 5,
    constraints: tuple[str, ...] = (),
    objectives: dict[str, str] = OBJECTIVES,
) -> Path:
    """A run whose front is `models` but for "baseline"; `test` is added to each test figure."""
    variants = [name for name in models if name.startswith("without-")]
    study = study_of(
        objectives,
        seeds=seeds,
        constraints=list(constraints),
        space={"seed": OWN},
        baseline={"learning_rate": 0.0005} if "baseline" in models else None,
        variants={name: {"width": 4} for name in variants},
    )
    rows: list[Row] = []
    for number, (model, by_seed) in enumerate(models.items()):
        searched = model != "baseline" and model not in variants
        rate = {"learning_rate": 0.001 * (number + 1)}
        config = {**study.search_space().defaults("unet"), **rate}
        config = config if searched else study.references()[model]
        first, *others = next(iter(by_seed.values())) or (0.5,) * len(objectives)
        own = {OWN: (first + FLATTERY, *others)} if searched else {}
        for seed, values in {**own, **by_seed}.items():
            rows.append({
                "id": model if seed == OWN else f"{model}-{seed}", "number": len(rows),
                "stage": "search" if seed == OWN else "seeds", "of": "" if seed == OWN else model,
                "state": "failed" if values is None else "completed",
                "reason": "loss became NaN" if values is None else "", "epochs": 6,
                "seconds": 2.0, **{f"config.{k}": v for k, v in {**config, "seed": seed}.items()},
                **{f"metric.{n}": v for n, v in zip(objectives, values or (), strict=False)},
            })  # fmt: skip
    run_folders.write_run(folder, rows, study)
    for row in rows if test is not None else ():
        if row["state"] == "completed":
            values = {n: row[f"metric.{n}"] + test for n in objectives}
            write_card(folder, {"id": row["id"], "metrics": values})
    return folder


def read(folder: Path) -> Repeats:
    return repeats(Run.open(folder))


BASELINE: Figures = {s: tuple(row) for s, row in enumerate(BASE.tolist())}  # type: ignore[misc]


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def test_the_table_is_what_scipy_and_holm_give(tmp_path: Path) -> None:
    models = {"a": figures((0.05, 0.04)), "b": figures((0.0, 0.0), 0.01), "baseline": BASELINE}
    run = write_run(tmp_path / "run", models, test=0.1)
    write_comparison(read(run))
    rows = table(run, COMPARISON)
    assert [(r["model"], r["objective"]) for r in rows] == [
        (m, o) for m in ("b", "a") for o in OBJECTIVES
    ]
    tests = [
        stats.ttest_rel(np.array(list(models[m].values()))[:, i], BASE[:, i])  # type: ignore[arg-type]
        for m in ("b", "a")
        for i in range(2)
    ]
    assert [float(r["p"]) for r in rows] == pytest.approx([t.pvalue for t in tests])
    assert [float(r["p_holm"]) for r in rows] == pytest.approx(holm([t.pvalue for t in tests]))
    assert [float(r["low"]) for r in rows] == pytest.approx(
        [t.confidence_interval().low for t in tests]
    )
    # a is better on the first objective, worse on the second: one is maximised, one minimised.
    assert [r["verdict"] for r in rows] == [*["no difference shown"] * 2, "better", "worse"]
    own = np.array(list(models["a"].values()))[:, 0]
    assert float(rows[2]["mean"]) == pytest.approx(own.mean() + 0.1)
    assert float(rows[2]["sd"]) == pytest.approx(own.std(ddof=1))
    assert {r["split"] for r in rows} == {"test"}


def test_a_variant_is_tested_and_takes_no_part_in_the_front(tmp_path: Path) -> None:
    models = {"a": figures((0.05, 0.04)), "without-x": figures((-0.2, 0.0)), "baseline": BASELINE}
    found = read(write_run(tmp_path / "run", models))
    assert [(row.model, row.verdict) for row in found.rows[2:]] == [
        ("without-x", "worse"),
        ("without-x", "no difference shown"),
    ]
    assert {model for seed in found.seeds for model in found.front(seed)} == {"a"}


def test_equal_models_are_a_tie_on_validation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": BASELINE, "baseline": BASELINE}, test=None)
    rows = read(run).rows
    assert [(r.verdict, r.split, r.p_holm) for r in rows] == [("tie", "val", 1.0)] * 2


def test_pairs_that_failed_or_are_missing_are_left_out_and_counted(tmp_path: Path) -> None:
    model = figures((0.05, 0.0))
    model[3] = None
    del model[4]
    run = write_run(tmp_path / "run", {"a": model, "baseline": BASELINE})
    found = read(run)
    first = found.rows[0]
    assert first.test is not None
    assert (first.test.n, first.left_out, first.summary.n) == (3, 2, 3)
    # Seed 3 ended without a model, so its front is empty; seed 4 has not ended.
    assert found.complete_seeds == [0, 1, 2, 3]
    assert [len(front) for front in found.fronts] == [1, 1, 1, 0]
    assert [len(surface) for surface in found.surfaces][-1] == 0


@pytest.mark.parametrize(
    ("models", "verdict"),
    [
        ({"a": figures((0.0, 0.0))}, "not tested"),
        (
            {"a": {s: figures((0.1, 0.0))[s] for s in (0, 1)}, "baseline": BASELINE},
            "too few seeds to test",
        ),
    ],
)
def test_what_cannot_be_tested_is_not(
    tmp_path: Path, models: dict[str, Figures], verdict: str
) -> None:
    run = write_run(tmp_path / "run", models)
    write_comparison(read(run))
    assert {r["verdict"] for r in table(run, COMPARISON)} == {verdict}
    assert {r["p_holm"] for r in table(run, COMPARISON)} == {""}


def test_a_repeat_that_the_search_trained_already_counts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": figures((0.0, 0.0)), "baseline": BASELINE})
    rows = rows_of(run)
    row = next(row for row in rows if row["of"] == "baseline")
    rewrite(run, [{**r, "stage": "search", "of": ""} if r is row else r for r in rows])
    assert read(run).rows[0].left_out == 0


def test_a_run_without_repeats_leaves_no_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {OWN: (0.6, 0.1)}}, seeds=1)
    for name in (COMPARISON, ATTAINMENT):
        (run / name).write_text("stale")
    found = read(run)
    assert not found.repeated
    write_comparison(found)
    assert not (run / COMPARISON).exists()
    assert not (run / ATTAINMENT).exists()


def test_a_judgement_that_is_missing_is_not_replaced_by_validation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": figures((0.0, 0.0)), "baseline": BASELINE}, test=0.2)
    (run / "evaluation" / "a-2.json").unlink()
    found = read(run)
    assert found.rows[0].left_out == 1
    assert 2 not in found.complete_seeds


def test_attainment_tells_the_corners_of_each_staircase(tmp_path: Path) -> None:
    models: dict[str, Figures] = {
        "a": {0: (0.5, 0.1), 1: (0.4, 0.2)},
        "b": {0: (0.7, 0.3), 1: (0.8, 0.4)},
    }
    run = write_run(tmp_path / "run", models, seeds=2)
    write_comparison(read(run))
    lines = [tuple(map(float, r.values())) for r in table(run, ATTAINMENT)]
    best = [(1, 2, 0.5, 0.1), (1, 2, 0.7, 0.3), (1, 2, 0.8, 0.4)]
    assert lines == [*best, (2, 2, 0.4, 0.2), (2, 2, 0.7, 0.4)]


def test_a_repeat_that_breaks_a_constraint_is_no_part_of_its_seeds_front(tmp_path: Path) -> None:
    models: dict[str, Figures] = {"a": {0: (0.5, 0.1), 1: (0.4, 0.2)}}
    run = write_run(tmp_path / "run", models, seeds=2, constraints=("clean.ece <= 0.15",))
    assert read(run).fronts == [[(0.5, 0.1)], []]


def test_three_objectives_have_the_share_of_seeds_at_each_model(tmp_path: Path) -> None:
    objectives = {**OBJECTIVES, "clean.dice": "max"}
    models: dict[str, Any] = {"a": {0: (0.5, 0.1, 0.5), 1: (0.6, 0.1, 0.5)}}
    run = write_run(tmp_path / "run", models, seeds=2, objectives=objectives)
    write_comparison(read(run))
    assert [r["share_of_seeds"] for r in table(run, ATTAINMENT)] == ["1.0", "0.5"]


def test_the_seed_that_chose_a_model_is_not_among_those_averaged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": BASELINE, "baseline": BASELINE})
    found = read(run)
    assert OWN not in found.seeds
    assert found.rows[0].verdict == "tie"
    assert found.rows[0].summary.mean == pytest.approx(BASE[:, 0].mean())


def test_a_constant_difference_is_called_one(tmp_path: Path) -> None:
    shifted = {seed: (a + 0.05, e + 0.05) for seed, (a, e) in enumerate(BASE.tolist())}
    run = write_run(tmp_path / "run", {"a": shifted, "baseline": BASELINE})
    write_comparison(read(run))
    told = table(run, COMPARISON)
    assert {(r["verdict"], r["p"], r["p_holm"]) for r in told} == {("constant difference", "", "")}
    assert float(told[0]["difference"]) == pytest.approx(0.05)


def test_tuned_models_against_an_untuned_one_are_said_to_be_that(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": BASELINE, "b": BASELINE, "baseline": BASELINE})
    assert "a search of 2 trials" in read(run).untuned
    # Where nothing was searched, nothing was tuned.
    one = write_run(tmp_path / "one", {"a": BASELINE, "baseline": BASELINE})
    assert read(one).untuned == ""
