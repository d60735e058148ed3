"""What this machine offers, within the limits of a container."""

import os
from pathlib import Path

import psutil
import pytest

from trustsweep.data_pipelines import machine

GIB = 2**30


def test_free_memory_is_what_the_system_says() -> None:
    free = machine.free_memory()
    assert 0 < free <= psutil.virtual_memory().total
    assert 1 <= machine.cpu_count() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("limit", "used", "stat", "key"),
    [
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ],
)
def test_a_containers_memory_is_its_limit_less_what_it_cannot_give_up(
    limit: str, used: str, stat: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CONTROL_GROUP", tmp_path)
    whole = machine.free_memory()
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text(f"{2**20}\n")
    (tmp_path / used).write_text(f"{2**19}\n")
    (tmp_path / stat).write_text(f"anon 5\n{key} {2**18}\n")
    assert machine.free_memory() == 2**20 - 2**19 + 2**18
    (tmp_path / limit).write_text("max\n" if limit == "memory.max" else f"{2**63 - 4096}\n")
    assert machine.free_memory() == pytest.approx(whole, rel=0.5)


def test_a_containers_cpus_are_its_share_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CONTROL_GROUP", tmp_path)
    given = machine.cpu_count()
    for text, expected in (
        ("max 100000", given),
        ("50000 100000", 1),
        ("150000 100000", 1),
        (f"{given * 100000} 100000", given),
        (f"{(given + 3) * 100000} 100000", given),
    ):
        (tmp_path / "cpu.max").write_text(f"{text}\n")
        assert machine.cpu_count() == expected
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for quota, expected in (("-1", given), ("100000", 1)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        assert machine.cpu_count() == expected
