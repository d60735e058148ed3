"""The benchmark of attacks, run small, so that it does not rot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_quick_run_writes_its_table_and_is_not_done_twice(tmp_path: Path) -> None:
    figures = tmp_path / "attacks.json"
    command = [
        sys.executable, str(ROOT / "benchmarks" / "attacks.py"), "--quick",
        "--out", str(tmp_path / "out"), "--json", str(figures),
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert first.returncode == 0, first.stderr[-2000:]
    rows = json.loads(figures.read_text())["rows"]
    assert rows
    for row in rows:
        fast, full = (row["attacked"][attack] for attack in ("fast", "full"))
        assert full.keys() == {"0.01", "0.02"}
        # The first member of the full ensemble is the fast one, so at the smallest ε it cannot
        # do less. Beyond, each goes on from the images that it found itself within the smaller ε,
        # and the fast one may happen on the better start; more room never does less harm.
        assert full["0.01"] <= fast["0.01"] + 1e-9
        for found in (fast, full):
            assert found["0.02"] <= found["0.01"] + 1e-9
    document = (tmp_path / "out" / "attacks.md").read_text()
    assert "Signs of gradient masking" in document
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0
    assert (tmp_path / "out" / "attacks.md").read_text() == document
