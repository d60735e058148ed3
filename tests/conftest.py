"""Shared fixtures: where the real data lies, and what stands in when it is absent."""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A slow machine is no defect of the code: nothing here is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core of its own; torch is not imported yet.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

_BEGAN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--within", type=float, metavar="MINUTES", help="skip the tests that would begin later"
    )


#: The slow tests that say most about the whole come first, as the time may run out.
FIRST = ("test_sweep.py", "test_slots.py")
#: Markers of tests that take long, and what runs them.
TIERS = {"slow": "make test-slow", "long": "make test-long"}
_LEFT_OUT: Counter[str] = Counter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`FIRST` first, by file, as a file's tests share what it starts."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else 9)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        _LEFT_OUT.update(tier for tier in TIERS if item.get_closest_marker(tier))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells the process that writes the summary what it left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(_LEFT_OUT)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker leaves out the same; one that crashed says nothing."""
    told = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))
    _LEFT_OUT.update(told - _LEFT_OUT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for tier, command in TIERS.items():
        if _LEFT_OUT[tier]:
            terminalreporter.write_line(f"left out: {_LEFT_OUT[tier]} {tier} tests ({command})")


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--within")
    if minutes is not None and time.monotonic() - _BEGAN > 60 * minutes:
        pytest.skip(f"out of time: more than {minutes:g} minutes have passed")


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
    from trustsweep.data_pipelines.building.prepare import prepare

    out = tmp_path_factory.mktemp("data") / "phantoms"
    prepare(None, "phantoms", out, size=32, count=96)
    return out


@pytest.fixture(scope="session")
def followed(tmp_path_factory) -> Path:
    """60 generated images of 16 pixels of patients with times to an event, prepared."""
    from trustsweep.data_pipelines.building.prepare import prepare

    out = tmp_path_factory.mktemp("data") / "followed"
    prepare(None, "phantoms", out, size=16, count=60, survival=True)
    return out


@pytest.fixture(scope="module")
def local_ray():
    """Two CPUs of Ray, never another cluster that happens to run on the machine."""
    import ray

    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()


class S3:
    """A server of a test module's own, which can be stopped and started on one port.

    It begins with an empty bucket, `data`; what it held is gone when it stops, as with a lost disk.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import boto3

        command = [Path(sys.executable).with_name("moto_server"), "-p", str(self.port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise TimeoutError("the S3 server does not come up")
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="data")

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def s3():
    """Named to this process and those it starts by the usual variables."""
    with pytest.MonkeyPatch.context() as patch:
        server = S3()
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server.start()
        yield server
        server.stop()
