"""The process that a person started is killed, at any moment, again and again."""

import csv
import random
import time

import pytest

from trustsweep.distributed.report.page import write_report
from trustsweep.distributed.run.checkpoints import latest_epochs
from trustsweep.distributed.run.exports import write_exports
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import END, LEDGER, Ledger, State

pytestmark = pytest.mark.timeout(3600)

TRIALS = 10


def moments(kills: int) -> list[tuple[int, float]]:
    """Before each kill: so many lines of the ledger are awaited, and so many seconds more.

    Every fifth comes while Ray is starting, where nothing is awaited.
    """
    draw = random.Random(4)
    return [
        (0, draw.uniform(0.5, 10)) if kill % 5 == 4 else (draw.randint(1, 4), draw.uniform(0, 0.3))
        for kill in range(kills - 1)
    ]


def lose_power(sweep) -> None:
    """What a machine may leave behind that goes dark in the middle of its writes."""
    with (sweep.run / LEDGER).open("ab") as file:
        file.write(b'{"event": "end", "id": "')
    (sweep.run / ".trials.csv.1.partial").write_bytes(b"id,num")
    for record in sweep.ledger.of(State.RUNNING):
        folder = sweep.run / "checkpoints" / record.id
        for state in sorted(folder.glob("state-*.safetensors"))[-1:]:
            state.write_bytes(state.read_bytes()[:-1])


def kept(sweep) -> dict[str, int]:
    """The epochs after which a state is kept of each trial under way."""
    running = sweep.ledger.of(State.RUNNING)
    return {r.id: latest_epochs(sweep.run / "checkpoints" / r.id) for r in running}


def assert_opens(sweep) -> None:
    """The report and the tables of a run that was killed."""
    run = Run.open(sweep.run)
    write_exports(run)
    assert write_report(run).stat().st_size > 10_000
    with (sweep.run / "trials.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == list(Ledger(sweep.run).records)


@pytest.mark.parametrize(
    ("changes", "kills"),
    [
        # The one of its kind that every change is tried by.
        pytest.param([], 2, id="twice", marks=pytest.mark.slow),
        pytest.param([], 20, id="none", marks=pytest.mark.long),
        pytest.param(["search.scheduler=halving"], 4, id="halving", marks=pytest.mark.long),
        pytest.param(
            ["search.scheduler={policy: forecast, learn_from: 3}"],
            4,
            id="forecast",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_driver_killed_again_and_again_ends_as_if_nothing_had_been(
    sweeps, undisturbed, tmp_path, changes, kills
):
    sweep = sweeps(tmp_path / "run", *changes)
    session = sweep.begin()
    session.wait_for(lambda: sweep.lines > 0)
    killed: list[tuple[int, dict[str, int]]] = []
    for number, (more, seconds) in enumerate(moments(kills)):
        seen = sweep.lines if number else 0
        session.wait_for(lambda awaited=seen + more: sweep.lines >= awaited)
        time.sleep(seconds)
        assert session.process.poll() is None, session.ended
        session.kill()
        if number % 7 == 3:
            lose_power(sweep)
        if number % 4 == 0:
            assert_opens(sweep)
        killed.append((len(sweep.events()), kept(sweep)))
        session = sweep.resume()
    session.wait_for(lambda: len(sweep.events(END)) == TRIALS)
    session.kill()  # while the front is judged
    ended = sweep.resume().finish()
    assert ended.code == 0, ended
    sweep.assert_ended_as(undisturbed(*changes))
    history = sweep.events()
    for before, epochs in killed:
        for trial, reached in epochs.items():
            later = (
                e["epochs"] for e in history[before:] if e.get("id") == trial and "epochs" in e
            )
            assert next(later) >= reached  # what was kept is not trained again
