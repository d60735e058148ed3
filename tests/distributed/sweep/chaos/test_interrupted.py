"""Ctrl-C, and what schedulers of jobs send in its place."""

import os
import signal

import pytest

from trustsweep.distributed.run.halt import INTERRUPTED
from trustsweep.distributed.run.ledger import END, State

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def test_ctrl_c_finishes_the_epoch_and_a_second_one_leaves_at_once(sweeps, undisturbed, tmp_path):
    """One run, left thrice: by the keyboard, by SIGTERM, and by two strokes."""
    sweep = sweeps(tmp_path / "run")

    session = sweep.begin()
    session.wait_for(lambda: sweep.reached(0))
    os.killpg(session.process.pid, signal.SIGINT)  # a terminal tells the whole group
    sweep.assert_halted(session.finish(), INTERRUPTED, "SIGINT")
    assert (sweep.run / "report.html").is_file()
    assert not sweep.events(END)

    session = sweep.resume()
    session.wait_for(lambda: sweep.reached(2))
    session.process.terminate()
    sweep.assert_halted(session.finish(), INTERRUPTED, "SIGTERM")

    session = sweep.resume()
    session.wait_for(lambda: sweep.reached(4))
    os.killpg(session.process.pid, signal.SIGINT)
    session.wait_for(lambda: "again to leave at once" in session.ended.out)
    os.killpg(session.process.pid, signal.SIGINT)
    sweep.assert_halted(session.finish(60), INTERRUPTED, "trustsweep: interrupted. Go on")
    assert len(sweep.ledger.of(State.COMPLETED)) >= 4

    assert sweep.resume().finish().code == 0
    sweep.assert_ended_as(undisturbed())


def test_a_run_that_is_going_on_is_not_resumed_beside_itself(sweeps, tmp_path):
    sweep = sweeps(tmp_path / "run")
    session = sweep.begin()
    session.wait_for(lambda: (sweep.run / "study.yaml").is_file())
    refused = sweep.resume().finish()
    assert refused.code == 2
    assert "another sweep is writing here" in refused.err
    session.kill()
