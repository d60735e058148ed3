"""The benchmark of models beside published ones, run small, so that it does not rot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_quick_run_writes_its_table_and_is_not_done_twice(tmp_path: Path) -> None:
    figures, out = tmp_path / "anchors.json", tmp_path / "out"
    command = [
        sys.executable, str(ROOT / "benchmarks" / "anchors.py"), "--quick",
        "--out", str(out), "--json", str(figures),
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert first.returncode == 0, first.stderr[-2000:]
    found = json.loads(figures.read_text())
    search = found["phantom-classes"]
    # Chosen by validation alone, and trained under other seeds than the search's.
    assert search["validation"] == max(search["spread"])
    assert len(search["spread"]) == search["trials"] == 3
    kept = [json.loads((out / "phantom-classes" / f"seed-{s}.json").read_text()) for s in (1, 2)]
    assert [row["config"]["seed"] for row in kept] == [1, 2]
    assert all("val" in row and "test" not in row for row in kept)
    for arm in found["phantom-masks"]["arms"].values():
        for figure in arm["test"].values():
            assert len(figure["seeds"]) == 2
            assert figure["value"] == pytest.approx(sum(figure["seeds"]) / 2)
            assert figure["low"] <= figure["value"] <= figure["high"]
    arms = found["phantom-masks"]["arms"]
    for name in arms.keys() - {"unet"}:
        gap = arms[name]["above_own"]["dice"]["value"]
        own = arms[name]["test"]["dice"]["value"] - arms["unet"]["test"]["dice"]["value"]
        assert gap == pytest.approx(own)
    document = (out / "anchors.md").read_text()
    assert "MONAI DynUNet" in document
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0
    assert (out / "anchors.md").read_text() == document
