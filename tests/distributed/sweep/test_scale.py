"""Thousands of trials: what each takes, and what is kept of it, does not grow with their number."""

import os
import statistics
import time
import tracemalloc

import numpy as np
import pytest

from trustsweep.distributed.run.folder import objectives_of
from trustsweep.distributed.run.ledger import Ledger
from trustsweep.distributed.search.journal import Journal
from trustsweep.distributed.search.stopping import make_policy

TRIALS = 2_000
#: Bytes of a record, its trial in Optuna and its id, with room for another version of Optuna.
MOST_KEPT = 16_000


@pytest.fixture(autouse=True)
def no_disk(monkeypatch):
    """The disk's own time is not what is asked about."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def processor_seconds(session) -> float:
    """Of one trial, from its suggestion to its end."""
    began = time.process_time()
    assert session.step()
    assert session.step()
    return time.process_time() - began


def test_the_last_trials_take_no_longer_than_the_first(simulated, study_of, tmp_path):
    """By medians, as a busy machine stretches single ones; twice as long would be quadratic."""
    study = study_of({"trials": TRIALS})
    session = simulated(tmp_path, study)
    seconds = [processor_seconds(session) for _ in range(TRIALS)]
    quarter = TRIALS // 4
    early = statistics.median(seconds[quarter // 2 : quarter + quarter // 2])
    late = statistics.median(seconds[-quarter:])
    assert late < 1.7 * early, (early, late)
    began = time.process_time()
    again = Ledger(tmp_path)
    journal = Journal(tmp_path, study.name, objectives_of(study), session.sampling.as_optuna)
    journal.write(again)
    assert again.records == session.ledger.records
    assert (time.process_time() - began) / TRIALS < 5 * early


def test_little_is_kept_of_a_trial(simulated, study_of, tmp_path):
    session = simulated(tmp_path, study_of({"trials": 300}))
    for _ in range(200):
        session.step()
    tracemalloc.start()
    try:
        for _ in range(400):
            session.step()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / 200 < MOST_KEPT


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["forecast", "halving"])
def test_the_last_verdicts_take_no_longer_than_the_first(policy, study_of):
    study = study_of({"scheduler": policy})
    judge = make_policy(study.search.scheduler, objectives_of(study), seed=0)
    draws = np.random.default_rng(0)

    def play(name: str) -> float:
        """Seconds of the verdicts on a trial that comes nearer to its end from rung to rung."""
        ends = draws.random(2)
        figures = [
            {"dice_area": ends[0] - left, "clean.ece": ends[1] + left}
            for left in np.linspace(0.3, 0.0, judge.rungs + 1)
        ]
        began = time.process_time()
        if not any(judge.report(name, r, figures[r]).stop for r in range(judge.rungs)):
            judge.end(name, figures[-1])
        return time.process_time() - began

    seconds = [play(str(number)) for number in range(1_500)]
    # By then each looks back as far as it ever does at the first rung.
    early, late = statistics.median(seconds[300:400]), statistics.median(seconds[-100:])
    assert late < 2 * early, (early, late)
