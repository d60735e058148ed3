"""`ray job submit` against a real local head with its dashboard, as the README writes it."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Ray head of its own; the environment that points a client at it."""
    gcs, dashboard, client, agent = free_ports(4)
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        # `ray start` takes up a token that it finds, `ray job submit` only when told to.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    # Unix socket paths are limited to about 100 characters, which pytest's folders exceed.
    session = Path("/tmp") / f"ray-{os.getpid()}"
    command = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats",
        "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
        "--include-dashboard=true", f"--temp-dir={session}",
    ]  # fmt: skip
    log = (tmp_path / "head.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
        wait_for(dashboard, process, tmp_path / "head.log")
        yield environment
    finally:
        end(process)
        log.close()
        shutil.rmtree(session, ignore_errors=True)


def wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the head did not come up:\n{log.read_text()}")


def end(process: subprocess.Popen) -> None:
    """End the head and everything it started, and nothing else."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.kill()
    process.wait()


def test_a_submitted_sweep_leaves_a_front_and_a_report(head, phantoms, tmp_path):
    run = tmp_path / "run"
    submitted = subprocess.run(
        [
            BIN / "ray", "job", "submit", "--working-dir", ROOT, "--",
            "trustsweep", "sweep", "evidential", "--data", phantoms, "--out", run, "--trials", "2",
            "--set", "space.epochs=1", "--set", "space.width=8",
            "--set", "evaluation.attack_steps=1", "--set", "evaluation.final=fast",
        ],
        env=head, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "succeeded" in submitted.stdout
    assert "Report:" in submitted.stdout
    assert (run / "report.html").is_file()
    assert json.loads((run / "summary.json").read_text())["counts"]["completed"] == 2


def test_bad_input_fails_the_job_with_its_one_line(head, tmp_path):
    submitted = subprocess.run(
        [
            BIN / "ray", "job", "submit", "--working-dir", ROOT, "--",
            "trustsweep", "sweep", "evidential", "--data", tmp_path / "nowhere",
        ],
        env=head, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert submitted.returncode != 0
    assert "no prepared data set here" in submitted.stdout
    assert "Traceback" not in submitted.stdout
