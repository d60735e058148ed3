"""The data lie on S3, and the server stops and comes back while a sweep streams from it."""

import time
from pathlib import Path

import pytest

from trustsweep.data_pipelines.storage import Folder
from trustsweep.distributed.run.ledger import END

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

REMOTE, STREAMED = "s3://data/chaos", "resources.data=streamed"


def upload(data: Path) -> None:
    Folder(REMOTE).upload(data, list(Folder(data).files()))


def test_a_sweep_waits_for_its_storage_or_says_that_it_is_away(
    sweeps, undisturbed, s3, phantoms, tmp_path
):
    upload(phantoms)
    sweep = sweeps(tmp_path / "run", STREAMED, data=REMOTE)

    session = sweep.begin(TRUSTSWEEP_PATIENCE="2")
    session.wait_for(lambda: sweep.reached(2))
    s3.stop()
    sweep.assert_halted(session.finish(), 1, REMOTE, "the storage does not answer")
    refused = sweep.resume().finish()
    assert refused.code == 2, refused
    assert "the storage does not answer" in refused.err

    s3.start()
    upload(phantoms)
    ended = len(sweep.events(END))
    session = sweep.resume(TRUSTSWEEP_PATIENCE="300")
    session.wait_for(lambda: sweep.reached(ended + 2))
    s3.stop()
    time.sleep(3)  # an evaluation takes less, and reads anew
    s3.start()
    upload(phantoms)
    done = session.finish()
    assert done.code == 0, done
    sweep.assert_ended_as(undisturbed(STREAMED))
