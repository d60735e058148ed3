"""A cluster of two nodes of which one is lost: it dies, or the link to it is cut."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from trustsweep.distributed.run.ledger import State

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

#: Ray takes a node for lost after three seconds of silence.
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 5,
}
#: Draws that do not depend on which of two trials ends first.
TWO_SLOTS, UNMOVED = "resources.slots=2", "search.sampler=random"


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """For Ray's sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield path


def both_run(sweep) -> bool:
    """Whether two trials have finished epochs and neither has ended."""
    return len([r for r in sweep.ledger.of(State.RUNNING) if r.epochs]) == 2


def test_a_node_that_dies_costs_no_trial(sweeps, undisturbed, tmp_path, ray_folder):
    sweep = sweeps(tmp_path / "run", TWO_SLOTS, UNMOVED)
    head = {"num_cpus": 1, "temp_dir": ray_folder, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        node = cluster.add_node(num_cpus=1)
        session = sweep.begin(RAY_ADDRESS=cluster.address)
        session.wait_for(lambda: both_run(sweep))
        cluster.remove_node(node, allow_graceful=False)
        ended = session.finish()
    finally:
        cluster.shutdown()
    assert ended.code == 0, ended
    sweep.assert_ended_as(undisturbed(UNMOVED))


def run(*command: object) -> str:
    """What a command prints; skips the test where this machine does not let us."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


class Link:
    """A network namespace, and a pair of interfaces between it and this one."""

    here, there = "10.213.77.1", "10.213.77.2"

    def __init__(self) -> None:
        self.namespace = f"sweep-{os.getpid()}"
        self.interface = f"sw{os.getpid()}a"
        self._inside = f"sw{os.getpid()}b"

    def open(self) -> None:
        inside = ("ip", "-n", self.namespace)
        run("ip", "netns", "add", self.namespace)
        run("ip", "link", "add", self.interface, "type", "veth", "peer", "name", self._inside)
        run("ip", "link", "set", self._inside, "netns", self.namespace)
        run("ip", "addr", "add", f"{self.here}/30", "dev", self.interface)
        run("ip", "link", "set", self.interface, "up")
        run(*inside, "addr", "add", f"{self.there}/30", "dev", self._inside)
        run(*inside, "link", "set", self._inside, "up")
        run(*inside, "link", "set", "lo", "up")

    def cut(self) -> None:
        run("ip", "link", "set", self.interface, "down")

    def close(self) -> None:
        """Its processes end with it."""
        pids = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False
        )
        for pid in pids.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        for command in (["link", "del", self.interface], ["netns", "del", self.namespace]):
            subprocess.run(["ip", *command], capture_output=True, check=False)


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link()
    with ExitStack() as stack:
        stack.callback(link.close)
        link.open()
        yield link


def test_a_cut_link_costs_no_trial(sweeps, undisturbed, tmp_path, ray_folder, link):
    """What runs beyond it goes on for a while and can be heard no more."""
    sweep = sweeps(tmp_path / "run", TWO_SLOTS, UNMOVED)
    head = {
        "num_cpus": 1,
        "temp_dir": ray_folder,
        "node_ip_address": link.here,
        "_system_config": HEALTH,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray = Path(sys.executable).with_name("ray")
    join = [ray, "start", f"--address={cluster.address}", f"--node-ip-address={link.there}"]
    inside = ["ip", "netns", "exec", link.namespace]
    node = subprocess.Popen([*inside, *join, "--num-cpus=1", "--block"], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while len([n for n in cluster.global_state.node_table() if n["Alive"]]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        session = sweep.begin(RAY_ADDRESS=cluster.address)
        session.wait_for(lambda: both_run(sweep))
        link.cut()
        ended = session.finish()
    finally:
        node.kill()
        cluster.shutdown()
    assert ended.code == 0, ended
    sweep.assert_ended_as(undisturbed(UNMOVED))
