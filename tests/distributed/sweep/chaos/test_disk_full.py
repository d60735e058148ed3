"""A disk that fills up in the middle of a sweep."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from trustsweep.distributed.run.checkpoints import latest_epochs, save_state
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import Ledger, Record, State


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """Of 24 MiB; a run of `STUDY` takes half of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a disk of its own here: {mounted.stderr.strip()}")
    yield folder
    # Lazily: what a killed test has left running may still write there.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte."""
    ballast = disk / "ballast"
    full = pytest.raises(OSError, match="No space left")
    with full, ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def test_a_line_that_does_not_fit_leaves_the_ledger_as_it_was(disk):
    ledger = Ledger(disk)
    ledger.start(Record("a", {"lr": 0.1}))
    # The ledger's own page has room for the first part of the line.
    ballast = fill(disk)
    before = (disk / "ledger.jsonl").read_bytes()
    long = Record("a", {}, state=State.COMPLETED, reason="x" * 8192)
    with pytest.raises(OSError, match=r"No space left on device: .*ledger\.jsonl"):
        ledger.end(long)
    assert (disk / "ledger.jsonl").read_bytes() == before
    assert ledger.records["a"].state is State.RUNNING
    ballast.unlink()
    assert ledger.end(long)
    assert Ledger(disk).records == ledger.records


def test_a_state_that_does_not_fit_leaves_the_one_before(disk, tensors):
    save_state(disk / "a", tensors, 1)
    fill(disk)
    with pytest.raises(OSError, match=r"state-00002\.safetensors: .*No space left on device"):
        save_state(disk / "a", tensors, 2)
    assert latest_epochs(disk / "a") == 1
    assert len(list((disk / "a").iterdir())) == 1


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_sweep_on_a_full_disk_says_so_and_goes_on_when_there_is_room(disk, sweeps, undisturbed):
    sweep = sweeps(disk / "run")
    session = sweep.begin(TRUSTSWEEP_PATIENCE="3")
    session.wait_for(lambda: sweep.reached(3))
    ballast = fill(disk)
    sweep.assert_halted(session.finish(), 1, "No space left on device")
    assert len(sweep.ledger.of(State.COMPLETED)) >= 3

    refused = sweep.resume().finish()
    assert refused.code == 2, refused
    assert "No space left on device" in refused.err
    assert len(refused.err.splitlines()) == 1

    ballast.unlink()
    assert Run.open(sweep.run).ledger.records
    ended = sweep.resume().finish()
    assert ended.code == 0, ended
    sweep.assert_ended_as(undisturbed())
