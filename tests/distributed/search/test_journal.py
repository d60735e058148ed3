"""Optuna's journal as a view: what Optuna reads from it is what the ledger says."""

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from trustsweep.distributed.run.folder import objectives_of
from trustsweep.distributed.run.ledger import Ledger, State
from trustsweep.distributed.search.journal import JOURNAL, Journal

STATES = {State.COMPLETED: "COMPLETE", State.STOPPED: "PRUNED", State.FAILED: "FAIL"}


def load(folder) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    return optuna.load_study(study_name="simulated", storage=storage)


def journal(session, study, folder) -> Journal:
    return Journal(folder, study.name, objectives_of(study), session.sampling.as_optuna)


def check(folder) -> None:
    """The file against the ledger, trial by trial."""
    records = [r for r in Ledger(folder).records.values() if r.state is not State.RUNNING]
    trials = load(folder).trials
    assert [t.user_attrs["id"] for t in trials] == [r.id for r in records]
    for trial, record in zip(trials, records, strict=True):
        assert trial.state.name == STATES[record.state]
        assert trial.user_attrs["config"] == record.config
        assert trial.duration.total_seconds() == pytest.approx(record.seconds)
        if record.state is State.COMPLETED:
            assert trial.values == [record.metrics["dice_area"], record.metrics["clean.ece"]]
            assert list(trial.constraints.values()) == [0.3 - record.metrics["clean.dice"]]


@pytest.fixture
def study(study_of):
    return study_of({"trials": 20}, constraints=["clean.dice >= 0.3"])


def test_what_optuna_reads_is_the_ledger_batch_by_batch(simulated, study, tmp_path):
    session = simulated(tmp_path, study, slots=3)
    view = journal(session, study, tmp_path)
    view.write(session.ledger)
    assert load(tmp_path).trials == []
    for batch in (1, 7, 2, 60):
        for _ in range(batch):
            session.step()
        view.write(session.ledger)
        check(tmp_path)
    loaded = load(tmp_path)
    assert {t.state.name for t in loaded.trials} == set(STATES.values())
    assert [d.name for d in loaded.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert loaded.metric_names == ["dice_area", "clean.ece"]


def test_a_journal_that_fits_is_gone_on_with_and_keeps_what_was_noted_there(
    simulated, study, tmp_path
):
    session = simulated(tmp_path, study)
    for _ in range(10):
        session.step()
    journal(session, study, tmp_path).write(session.ledger)
    load(tmp_path).set_user_attr("note", "look at trial 3")
    before = (tmp_path / JOURNAL).read_bytes()
    again = simulated(tmp_path, study)
    again.run()
    journal(again, study, tmp_path).write(again.ledger)
    assert (tmp_path / JOURNAL).read_bytes().startswith(before)
    assert load(tmp_path).user_attrs["note"] == "look at trial 3"
    check(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: whole[:-20],
        lambda whole: whole + b'{"op_code": 4, "wor',
        lambda whole: b"\n".join([*whole.splitlines()[:4], b"5", *whole.splitlines()[4:]]) + b"\n",
        lambda whole: whole.replace(b'"simulated"', b'"other"'),
        lambda whole: b"\n".join([*whole.splitlines()[:3], *whole.splitlines()[4:]]) + b"\n",
        lambda whole: whole + whole.splitlines()[-1] + b"\n",
        lambda whole: b"",
    ],
    ids=["cut", "torn", "garbage", "other study", "one missing", "one twice", "empty"],
)
def test_a_journal_that_does_not_fit_is_written_anew(simulated, study, tmp_path, spoil):
    session = simulated(tmp_path, study)
    session.run()
    journal(session, study, tmp_path).write(session.ledger)
    path = tmp_path / JOURNAL
    path.write_bytes(spoil(path.read_bytes()))
    journal(session, study, tmp_path).write(session.ledger)
    check(tmp_path)


def test_what_a_changed_study_does_not_have_is_left_out(simulated, study, study_of, tmp_path):
    first = simulated(tmp_path, study)
    first.run()
    journal(first, study, tmp_path).write(first.ledger)
    narrow = study_of({"trials": 20}, space={"learning_rate": {"low": 3e-4, "high": 2e-3}})
    view = journal(simulated(tmp_path, narrow), narrow, tmp_path)
    for _ in range(2):
        view.write(first.ledger)
        rates = [t.params["learning_rate"] for t in load(tmp_path).trials]
        assert rates == [
            r.config["learning_rate"]
            for r in first.ledger.records.values()
            if r.config["learning_rate"] <= 2e-3
        ]
    assert 0 < len(rates) < 20
