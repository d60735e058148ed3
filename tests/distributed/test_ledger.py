import csv
import json

import pytest

from data_pipelines.errors import UserError
from distributed.ledger import Ledger, Record, State, trial_id


def record(name: str, state: State = State.COMPLETED, **more) -> Record:
    config = {"lr": 0.1, "batch": 3}
    return Record(
        id=name, config=config, state=state, metrics={"z.dice": 1.0, "clean.dice": 0.5}, **more
    )


def test_a_trial_is_named_by_all_that_its_figures_depend_on():
    config = {"lr": 0.1, "seed": 0}
    name = trial_id(config, "data", "1")
    assert name == trial_id({"seed": 0, "lr": 0.1}, "data", "1")
    others = [
        trial_id({**config, "seed": 1}, "data", "1"),
        trial_id(config, "other", "1"),
        trial_id(config, "data", "2"),
    ]
    assert len({name, *others}) == 4


def test_a_result_is_accepted_once(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.start(record("a", State.RUNNING))
    assert ledger.end(record("a"))
    assert not ledger.end(record("a", State.FAILED))
    ledger.start(record("a", State.RUNNING))
    assert Ledger(tmp_path).records["a"].state is State.COMPLETED


def test_the_ledger_reads_back_in_the_order_of_ending(tmp_path):
    ledger = Ledger(tmp_path)
    for name in "abc":
        ledger.start(record(name, State.RUNNING))
    ledger.end(record("c"))
    ledger.end(record("a", State.FAILED, reason="diverged"))
    again = Ledger(tmp_path)
    assert list(again.records) == ["b", "c", "a"] == list(ledger.records)
    assert again.of(State.FAILED)[0].reason == "diverged"
    assert again.records == ledger.records
    ledger.write_trials(tmp_path / "a.csv")
    again.write_trials(tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_a_torn_last_line_is_left_out_and_a_torn_middle_is_an_error(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.end(record("a"))
    path = tmp_path / "ledger.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"id": "b", "conf')
    assert list(Ledger(tmp_path).records) == ["a"]
    path.write_text('{"id": "b", "conf\n' + whole)
    with pytest.raises(UserError, match="line 1"):
        Ledger(tmp_path)


def test_writing_after_a_torn_line_loses_nothing(tmp_path):
    Ledger(tmp_path).end(record("a"))
    path = tmp_path / "ledger.jsonl"
    path.write_text(path.read_text() + '{"id": "b", "conf')
    Ledger(tmp_path).end(record("c"))
    assert list(Ledger(tmp_path).records) == ["a", "c"]


def test_trials_csv_has_a_row_per_trial_and_empty_cells_where_a_key_does_not_apply(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.end(record("a"))
    ledger.end(Record(id="b", config={"eps": 1}, state=State.FAILED, reason="a, comma"))
    ledger.write_trials(tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["config.lr"] == "0.1"
    assert first["config.eps"] == first["reason"] == ""
    assert (second["state"], second["reason"], second["metric.clean.dice"]) == (
        "failed",
        "a, comma",
        "",
    )


def test_lines_are_json(tmp_path):
    Ledger(tmp_path).end(record("a"))
    (line,) = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["state"] == "completed"
