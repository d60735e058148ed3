"""Processes of Ray are killed below a sweep: workers in an epoch, and slots."""

import random
import time

import pytest

from trustsweep.distributed.run.ledger import EPOCH

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


#: What Ray calls the processes of a slot: the one that Tune holds, its board, and its workers.
SLOT, BOARD, WORKER = "ray::ResourceTrainable", "ray::Board", "RayTrainWorker"


def kill_one(session, name: str) -> None:
    """SIGKILL a process that Ray calls so, once there is one."""
    session.wait_for(lambda: session.below(name))
    session.below(name)[0].kill()


def test_killed_workers_and_slots_change_nothing(sweeps, undisturbed, tmp_path):
    draw = random.Random(1)
    sweep = sweeps(tmp_path / "run")
    session = sweep.begin()
    for victim in (WORKER, SLOT, WORKER, BOARD, WORKER):
        epochs = len(sweep.events(EPOCH)) + draw.randint(1, 6)
        session.wait_for(lambda awaited=epochs: len(sweep.events(EPOCH)) >= awaited)
        time.sleep(draw.uniform(0, 0.3))
        kill_one(session, victim)
    ended = session.finish()
    assert ended.code == 0, ended
    sweep.assert_ended_as(undisturbed())
