"""What a machine leaves behind that goes dark while it writes; whole sweeps: test_driver_killed."""

import pytest

from trustsweep.distributed.run.checkpoints import (
    finished_card,
    latest_epochs,
    load_state,
    save_state,
)
from trustsweep.distributed.run.ledger import Ledger, Record, State


def test_a_state_cut_off_anywhere_is_passed_over(tmp_path, tensors):
    for epochs in (1, 2, 3):
        save_state(tmp_path, tensors, epochs)
    newest = tmp_path / "state-00003.safetensors"
    whole = newest.read_bytes()
    for length in range(len(whole)):
        newest.write_bytes(whole[:length])
        assert latest_epochs(tmp_path) == 2
    newest.write_bytes(whole)
    assert latest_epochs(tmp_path) == 3
    (tmp_path / "state-00002.safetensors").write_bytes(b"")
    newest.write_bytes(b"")
    assert latest_epochs(tmp_path) == 0


def test_what_was_being_written_is_in_nobodys_way(tmp_path, tensors):
    (tmp_path / ".state-00002.safetensors.77.partial").write_bytes(b"half")
    (tmp_path / ".model.json.77.partial").write_bytes(b"{")
    (tmp_path / "model.safetensors").write_bytes(b"a model whose card was not written")
    save_state(tmp_path, tensors, 1)
    assert latest_epochs(tmp_path) == 1
    assert finished_card(tmp_path) is None
    assert load_state(tmp_path, 1).keys() == tensors.keys()


@pytest.mark.parametrize("lost", [1, 10, 100])
def test_a_ledger_that_lost_its_end_is_that_of_a_moment_before(tmp_path, lost):
    ledger = Ledger(tmp_path)
    for name in "ab":
        ledger.start(Record(name, {"lr": 0.1}))
        ledger.epoch(name, 1, 0.5, rung=0, figures={"clean.dice": 0.5})
    before = dict(ledger.records)
    ledger.end(Record("b", {"lr": 0.1}, state=State.COMPLETED, metrics={"clean.dice": 0.6}))
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-lost])
    again = Ledger(tmp_path)
    again.lock()
    assert again.records == before
    assert again.end(Record("b", {"lr": 0.1}, state=State.FAILED, reason="diverged"))
    assert Ledger(tmp_path).records == again.records


def test_what_another_process_wrote_before_the_lock_is_kept(tmp_path):
    early = Ledger(tmp_path)
    Ledger(tmp_path).start(Record("a", {}))
    early.lock()
    early.start(Record("b", {}))
    assert list(Ledger(tmp_path).records) == ["a", "b"]
