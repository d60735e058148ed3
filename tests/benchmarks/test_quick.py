"""Every benchmark, run small as a user runs it, so that none rots."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trustsweep.search_spaces.study import Scheduler
from trustsweep.trainables.registry import NETWORKS

slow = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Their own tests run them.
ELSEWHERE = {"anchors", "attacks", "decoder", "evidential", "fusion"}
SCRIPTS = sorted(
    path.stem
    for path in BENCHMARKS.glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)


def run(name: str, folder: Path, *arguments: object, seconds: float = 300) -> dict:
    """What it writes with --quick --json; it must say something and leave nothing where it is."""
    figures = folder / "figures.json"
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--quick", "--json", figures, *arguments]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert done.stdout.strip()
    found = json.loads(figures.read_text())
    assert found
    return found


def test_every_benchmark_is_run_by_a_test():
    here = {name.removeprefix("test_").removesuffix("_runs") for name in globals()}
    assert set(SCRIPTS) <= here | ELSEWHERE


@slow
def test_corruptions_runs(tmp_path):
    rows = run("corruptions", tmp_path)["rows"]
    assert len(rows) > 20
    assert all(row["batched_us"] > 0 and row["one_by_one_us"] > 0 for row in rows)


@slow
def test_mc_passes_runs(tmp_path):
    found = run("mc_passes", tmp_path)
    assert found["passes"] == 2
    assert all(row["ratio"] > 0 for row in found["rows"])


@slow
def test_networks_runs(tmp_path):
    rows = run("networks", tmp_path)["rows"]
    assert {row["network"] for row in rows} == set(NETWORKS)
    assert [row["ratio"] for row in rows if row["network"] in ("unet", "resnet")] == [1, 1]
    assert all(row["parameters"] > 0 and 0 <= row["test"] <= 1 for row in rows)


@slow
def test_search_overhead_runs(tmp_path):
    found = run("search_overhead", tmp_path)
    assert found["policy"] == Scheduler().policy != "halving"
    for rows in (found["random"], found["tpe"], found["halving"]):
        assert rows[-1]["trials"] == 40
        assert rows[-1]["parts"]["scheduler"] > 0
    assert found["optuna"]["seconds"] > 0
    assert found["resume"]["ledger_mb"] > 0


@slow
def test_search_efficiency_runs(real_data, tmp_path):
    out = ("--data", real_data, "--out", tmp_path / "out")
    found = run("search_efficiency", tmp_path, *out)
    kept = (tmp_path / "out" / "searches.jsonl").read_text()
    assert run("search_efficiency", tmp_path, *out) == found
    assert (tmp_path / "out" / "searches.jsonl").read_text() == kept
    assert (tmp_path / "out" / "search_efficiency.md").read_text().startswith("# ")


@slow
def test_trial_overhead_runs(tmp_path):
    (row,) = run("trial_overhead", tmp_path, seconds=580)["rows"]
    assert row["workers"] == row["trials"] == 1
    # Starting processes for each trial costs seconds, a warm slot none.
    assert row["ratio"] > 2


@slow
def test_input_pipeline_runs(tmp_path):
    table = tmp_path / "table.md"
    found = run("input_pipeline", tmp_path, "--table", table, seconds=580)
    assert {row["way"] for row in found["rows"]} >= {"memory", "materialised", "Ray Data"}
    assert "| memory |" in table.read_text()
