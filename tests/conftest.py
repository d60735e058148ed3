"""Shared fixtures: where the real data lies, and what stands in when it is absent."""

import logging
import os
from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no defect of the code: nothing here is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; skips where this checkout does not stand beside it."""
    if not REAL_DATA.is_dir():
        pytest.skip("real data are not redistributable and do not lie beside this checkout")
    return REAL_DATA


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """96 generated images of 32 pixels, prepared."""
    from data_pipelines.prepare import prepare

    out = tmp_path_factory.mktemp("data") / "phantoms"
    prepare(None, "phantoms", out, size=32, count=96)
    return out


@pytest.fixture(scope="module")
def local_ray():
    """Two CPUs of Ray, never another cluster that happens to run on the machine."""
    import ray

    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()
