"""The ledger: what it accepts, what comes back, and what a full disk or a second process does."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.run.exports import write_trials
from trustsweep.distributed.run.ledger import LEDGER, SEEDS, Ledger, Record, State, trial_id


def record(name: str, state: State = State.COMPLETED, **more) -> Record:
    known = {"config": {"lr": 0.1, "batch": 3}, "metrics": {"z.dice": 1.0, "clean.dice": 0.5}}
    return Record(id=name, state=state, **{**known, **more})


def test_a_trial_is_named_by_all_that_its_figures_depend_on():
    config = {"lr": 0.1, "seed": 0}
    judged = {"attack": "pgd", "attack_steps": 7}
    name = trial_id(config, "data", "1", judged)
    assert name == trial_id({"seed": 0, "lr": 0.1}, "data", "1", dict(reversed(judged.items())))
    others = [
        trial_id({**config, "seed": 1}, "data", "1", judged),
        trial_id(config, "other", "1", judged),
        trial_id(config, "data", "2", judged),
        trial_id(config, "data", "1", {**judged, "attack_steps": 20}),
    ]
    assert len({name, *others}) == 5


def test_a_trial_is_marked_with_the_code_that_trained_it(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.session(code="old")
    ledger.start(record("a"))
    ledger.start(record("b"))
    ledger.epoch("a", 1, 1.0)
    ledger.end(record("a"))
    ledger.session(code="new")
    ledger.epoch("b", 1, 1.0)
    ledger.epoch("b", 2, 2.0)
    ledger.end(record("b"))
    ledger.start(record("c"))
    for known in (ledger, Ledger(tmp_path)):
        assert {r.id: r.code for r in known.records.values()} == {
            "a": "old",
            "b": "old, new",
            "c": "new",
        }
    write_trials(tmp_path / "trials.csv", ledger.records.values())
    with (tmp_path / "trials.csv").open() as file:
        assert [row["code"] for row in csv.DictReader(file)] == ["old", "old, new", "new"]


# Whatever is told of three trials, in whatever order and however often.
telling = st.tuples(
    st.sampled_from(["start", "epoch", "end"]), st.sampled_from("abc"), st.integers(1, 4)
)


@given(st.lists(telling, max_size=40))
def test_one_result_a_trial_and_epochs_that_ascend_whatever_is_told(tmp_path_factory, tellings):
    folder = tmp_path_factory.mktemp("ledger")
    ledger = Ledger(folder)
    accepted = []
    for kind, name, number in tellings:
        if kind == "start":
            ledger.start(record(name, State.RUNNING, metrics={}))
        elif kind == "epoch" and name in ledger.records:
            ledger.epoch(name, number, number * 1.5, number - 1, {"x": float(number)})
        elif kind == "end":
            state = [State.COMPLETED, State.STOPPED, State.FAILED][number % 3]
            if ledger.end(record(name, state, epochs=number)):
                accepted.append((name, state))
    events = list(ledger.events())
    ends = [(e["id"], e["state"]) for e in events if e["event"] == "end"]
    assert ends == accepted
    assert len({name for name, _ in ends}) == len(ends)
    for name in "abc":
        mine = [e for e in events if e.get("id") == name]
        epochs = [e["epochs"] for e in mine if e["event"] == "epoch"]
        assert epochs == sorted(set(epochs))
        assert [e["event"] for e in mine[1:]].count("start") == 0
        assert "end" not in [e["event"] for e in mine[:-1]]
    again = Ledger(folder)
    assert again.records == ledger.records
    assert list(again.records) == list(ledger.records)


def test_everything_comes_back_in_the_order_of_ending(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.session(version="1", changes=["search.trials"])
    ledger.prior(record("old", dominated_by=("x", "y"), rungs={1: {"dice": 0.5}}))
    draw = {"trial": {"generation": 2}}
    for number, name in enumerate("abc"):
        ledger.start(record(name, State.RUNNING, number=number, draw=draw, metrics={}))
    ledger.start(record("s", State.RUNNING, stage=SEEDS, of="c", metrics={}))
    ledger.epoch("b", 2, 7.5, 0, {"dice": 0.25})
    ledger.epoch("b", 4, 9.5, 1, {"dice": float("nan")})
    ledger.epoch("b", 5, 11.0)
    ledger.end(record("c", number=2, draw=draw, ended=12.5))
    ledger.end(replace(ledger.records["a"], state=State.FAILED, reason="diverged"))
    again = Ledger(tmp_path)
    assert list(again.records) == ["b", "s", "c", "a"]
    (running,) = again.of(State.RUNNING, "search")
    assert (running.epochs, running.seconds, running.number, running.draw) == (5, 11.0, 1, draw)
    assert running.rungs[0] == {"dice": 0.25}
    assert list(running.rungs) == [0, 1]
    assert again.records["c"] == record("c", number=2, draw=draw, ended=12.5)
    assert again.of(State.FAILED)[0].reason == "diverged"
    assert [r.of for r in again.of(State.RUNNING, SEEDS)] == ["c"]
    assert again.priors == [record("old", dominated_by=("x", "y"), rungs={1: {"dice": 0.5}})]
    assert again.sessions == [{"version": "1", "changes": ["search.trials"]}]


def test_a_ledger_may_break_off_anywhere(tmp_path):
    """Cut at every byte: what is whole is read, and writing goes on after it."""
    ledger = Ledger(tmp_path)
    ledger.session()
    ledger.start(record("a", State.RUNNING))
    ledger.epoch("a", 1, 1.0)
    ledger.end(record("a"))
    path = tmp_path / LEDGER
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        torn = Ledger(tmp_path)
        assert len(list(torn.events())) == max(0, lines - 1)  # the first states the format
        assert bool(torn.of(State.COMPLETED)) == (lines == 5)
        torn.end(record("b"))
        assert Ledger(tmp_path).records["b"].state is State.COMPLETED


@pytest.mark.parametrize("line", ['{"event": "end", "id', "[1]", '{"id": "a"}', "", "5"])
def test_an_unreadable_line_before_the_last_is_an_error_that_names_it(tmp_path, line):
    Ledger(tmp_path).end(record("a"))
    path = tmp_path / LEDGER
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(UserError, match="line 1 is unreadable; restore"):
        Ledger(tmp_path)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from trustsweep.distributed.run.ledger import Ledger, Record, State

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # EFBIG rather than death
folder = Path(sys.argv[1])
ledger = Ledger(folder)
ledger.start(Record(id="a", config={}))
size = (folder / "ledger.jsonl").stat().st_size
for room in range(0, 60, 7):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
    try:
        ledger.end(Record(id="a", config={}, state=State.COMPLETED))
    except OSError:
        assert (folder / "ledger.jsonl").stat().st_size == size
        assert ledger.records["a"].state is State.RUNNING
    else:
        sys.exit("it was to be full")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert ledger.end(Record(id="a", config={}, state=State.COMPLETED))
"""


def test_a_full_disk_leaves_the_ledger_as_it_was_and_room_lets_it_go_on(tmp_path):
    """In a process of its own: the limit holds for every file that it writes."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Ledger(tmp_path).records["a"].state is State.COMPLETED


def test_a_second_process_is_kept_out_until_the_first_has_gone(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; "
        "from trustsweep.distributed.run.ledger import Ledger; "
        "ledger = Ledger(Path(sys.argv[1])); ledger.lock(); print('locked', flush=True); "
        "time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "locked\n"
            ledger = Ledger(tmp_path)  # reading needs no permission
            with pytest.raises(UserError, match="another sweep is writing here"):
                ledger.lock()
        finally:
            other.send_signal(signal.SIGKILL)
    ledger.lock()


def test_trials_csv_has_a_row_per_trial_and_empty_cells_where_a_key_does_not_apply(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.end(record("a", number=3, epochs=2, seconds=1.23456, ended=9.0))
    failed = record("b", State.FAILED, config={"eps": 1}, reason="a, comma", metrics={})
    ledger.end(failed)
    ledger.end(record("c", State.STOPPED, dominated_by=("a", "b"), stage=SEEDS, of="a"))
    write_trials(tmp_path / "trials.csv", ledger.records.values())
    with (tmp_path / "trials.csv").open() as file:
        first, second, third = csv.DictReader(file)
    head = {"id": "a", "number": "3", "stage": "search", "of": "", "state": "completed"}
    rest = {"reason": "", "dominated_by": "", "epochs": "2", "seconds": "1.235", "ended": "9.0"}
    rest["code"] = ""  # no session said what it was
    config = {"config.lr": "0.1", "config.batch": "3", "config.eps": ""}
    assert first == {
        **head, **rest, **config, "metric.z.dice": "1.0", "metric.clean.dice": "0.5"
    }  # fmt: skip
    assert list(first)[:11] == [*head, *rest]
    assert (second["reason"], second["metric.clean.dice"]) == ("a, comma", "")
    assert (third["stage"], third["of"], third["dominated_by"]) == ("seeds", "a", "a b")


def test_a_ledger_of_no_trial_is_a_table_without_rows(tmp_path):
    write_trials(tmp_path / "trials.csv", Ledger(tmp_path).records.values())
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 1


def test_lines_are_json_and_ends_reach_the_disk(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), real(file)))
    ledger = Ledger(tmp_path)
    ledger.start(record("a", State.RUNNING))
    ledger.epoch("a", 1, 1.0, 0, {})
    assert not synced
    ledger.end(record("a"))
    assert len(synced) == 1
    *_, last = (tmp_path / LEDGER).read_text().splitlines()
    assert json.loads(last)["state"] == "completed"
