"""Plans the resources of a sweep on a cluster before anything starts.

Ray waits silently for resources that never come; here they are checked at once.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.machine import cpu_count, free_memory
from trustsweep.data_pipelines.plugins import PLUGINS
from trustsweep.data_pipelines.streams.modes import TASK_CPUS, Mode, ModeChoice, choose
from trustsweep.search_spaces.study import Resources

#: How a Ray cluster is named to this process; `ray job submit` sets it.
ADDRESS = "RAY_ADDRESS"
#: Keys of a node beside Ray's: bytes of its object store, and of one of its GPUs' memory.
STORE, GPU_BYTES = "object_store_memory", "gpu_bytes"
#: CPUs that a streamed data set takes for each worker, at least.
STREAM_CPUS = 1.0
#: Beyond this, one worker does not keep up with what is prepared for it.
_MOST_TASKS = 32
_PROBE_SECONDS = 60.0
#: Of the free memory, and of shared memory, that the object store may take on this machine; the
#: most, and the least that Ray starts with, in bytes.
_STORE_SHARE, _SHARED_SHARE = 0.3, 0.95
_LARGEST_STORE, _LEAST_STORE = 200 * 10**9, 80 * 2**20


@dataclass(frozen=True)
class ResourcePlan:
    """How many slots run at once and what each of their workers holds."""

    slots: int
    workers: int
    per_worker: dict[str, float]
    cluster: dict[str, float]
    data: ModeChoice

    @property
    def ranks(self) -> int:
        """Workers that train at once."""
        return self.slots * self.workers

    @property
    def stream_tasks(self) -> int:
        """Of Ray Data, at once, for each worker: an equal share of the CPUs that nobody holds."""
        left = self.cluster["CPU"] - self.ranks * self.per_worker["CPU"]
        return max(1, min(_MOST_TASKS, int(left / self.ranks / TASK_CPUS + 1e-9)))

    @property
    def threads(self) -> int:
        """Torch threads of a worker."""
        return max(1, int(self.per_worker["CPU"]))

    def __str__(self) -> str:
        gpus = self.per_worker.get("GPU", 0)
        each = f"{self.per_worker['CPU']:g} CPU" + (f" + {gpus:g} GPU" if gpus else "")
        total = f"{self.cluster['CPU']:g} CPU"
        if self.cluster.get("GPU"):
            total += f" + {self.cluster['GPU']:g} GPU"
        slots = f"{self.slots} slot(s) x {self.workers} worker(s) x {each}, of {total}"
        return f"{slots}; data: {self.data}"


def nodes() -> list[dict[str, float]]:
    """The nodes that a sweep would run on: of RAY_ADDRESS's cluster, else this machine.

    Raises `UserError` where the cluster does not answer.
    """
    if (known := known_nodes()) is not None:
        return known
    with ray_session():
        return cluster_nodes()


def known_nodes() -> list[dict[str, float]] | None:
    """The same where that needs no connection; None for a cluster that is to be connected to."""
    if _connected():
        return cluster_nodes()
    return None if ADDRESS in os.environ else local_nodes()


def _connected() -> bool:
    """Whether this process is connected to Ray, which is not loaded to tell."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def local_nodes() -> list[dict[str, float]]:
    """This machine as the only node, without starting Ray.

    `ray_session` starts it with just this. The object store has Ray's own default, 30 % of the free
    memory, and what shared memory holds at most: beyond that, Ray would have it on disk. For
    another size, start Ray yourself (`ray start --head --object-store-memory ...`, RAY_ADDRESS).
    """
    node = {"CPU": float(cpu_count()), "GPU": float(_gpu_count())}
    store = min(_STORE_SHARE * free_memory(), _LARGEST_STORE)
    shared = Path("/dev/shm")
    if shared.is_dir():
        store = min(store, _SHARED_SHARE * shutil.disk_usage(shared).free)
    node[STORE] = float(max(int(store), _LEAST_STORE))
    if node["GPU"]:
        node[GPU_BYTES] = float(_gpu_bytes())
    return [node]


def cluster_nodes() -> list[dict[str, float]]:
    """The living nodes of the Ray cluster that this process is connected to."""
    import ray

    nodes: dict[str, dict[str, float]] = {
        node["NodeID"]: {key: node["Resources"].get(key, 0.0) for key in ("CPU", "GPU", STORE)}
        for node in ray.nodes()
        if node["Alive"]
    }
    _ask_gpus(nodes)
    return list(nodes.values())


def _ask_gpus(nodes: Mapping[str, dict[str, float]]) -> None:
    """Add what Ray does not know, the GPUs' memory, by a process on each node that has some."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probes = {
        ray.remote(_gpu_bytes)
        .options(
            num_cpus=0,
            num_gpus=0.01,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        .remote(): node
        for node_id, node in nodes.items()
        if node["GPU"]
    }
    if probes:
        answered, late = ray.wait([*probes], num_returns=len(probes), timeout=_PROBE_SECONDS)
        for probe in answered:
            probes[probe][GPU_BYTES] = float(ray.get(probe))
        for probe in late:  # others hold all of that node's GPUs
            ray.cancel(probe)


def _gpu_count() -> int:
    """GPUs that torch sees; without a driver 0, as loading torch takes seconds."""
    drivers = (
        "/proc/driver/nvidia", "/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd",
    )  # fmt: skip
    if shutil.which("nvidia-smi") is None and not any(map(os.path.exists, drivers)):
        return 0
    import torch

    return torch.cuda.device_count()


def _gpu_bytes() -> int:
    """Memory of the smallest GPU that this process sees; 0 without any."""
    import torch

    devices = range(torch.cuda.device_count())
    return min((torch.cuda.get_device_properties(i).total_memory for i in devices), default=0)


def _device_bytes(nodes: Sequence[Mapping[str, float]], gpus: float) -> float:
    """Of GPU memory for one worker, by the smallest GPU; 0 where none is known."""
    known = [node.get(GPU_BYTES, 0.0) for node in nodes if node.get("GPU")]
    return min(gpus, 1.0) * min(known, default=0.0)


def plan(
    resources: Resources,
    trials: int,
    nodes: Sequence[Mapping[str, float]],
    data_bytes: int = 0,
) -> ResourcePlan:
    """Fit slots into the cluster, and choose how data reach them.

    Workers are whole on one node. A slot's own processes take no CPU. A data set that memory holds
    is read before the slots start, with all of the cluster's CPUs; a streamed one takes CPUs beside
    every worker, without which training would wait for ever.

    Args:
        resources: The study's section.
        trials: Of the study, as many as may run side by side.
        nodes: By `local_nodes` or `cluster_nodes`.
        data_bytes: Of the train and validation splits, as stored.

    Raises:
        UserError: where it cannot fit.
    """
    total = {key: sum(node.get(key, 0.0) for node in nodes) for key in ("CPU", "GPU")}
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if total["GPU"] >= 1 else 0.0
    worker = {"CPU": resources.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
    data = choose(
        resources.data,
        data_bytes,
        store=min((node[STORE] for node in nodes if STORE in node), default=0.0),
        device=_device_bytes(nodes, gpus),
    )
    room = sum(
        min(int(node.get(key, 0.0) / need + 1e-9) for key, need in worker.items()) for node in nodes
    )
    streaming = STREAM_CPUS if data.mode is Mode.STREAMED else 0.0
    if streaming:
        room = min(room, int(total["CPU"] / (resources.cpus_per_worker + streaming) + 1e-9))
    fitting = room // resources.workers
    wanted = 1 if resources.slots == "auto" else resources.slots
    if total["CPU"] < 1 or fitting < wanted:
        each = " + ".join(f"{need:g} {key}" for key, need in worker.items())
        if streaming:
            each += f" + {streaming:g} CPU for its data stream"
        has = ", ".join(f"{value:g} {key}" for key, value in total.items())
        raise UserError(
            f"resources: {wanted} slot(s) x {resources.workers} worker(s) x {each} do not fit: the "
            f"cluster has {has} on {len(nodes)} node(s). Lower resources.slots, resources.workers "
            "or what a worker takes, or add nodes."
        )
    slots = min(trials, fitting) if resources.slots == "auto" else resources.slots
    return ResourcePlan(slots, resources.workers, worker, total, data)


@contextmanager
def ray_session(
    plugin_files: Sequence[Path] = (), node: Mapping[str, float] | None = None
) -> Iterator[None]:
    """Ray for the length of a sweep. A cluster that was already there is left as it is.

    `plugin_files` are loaded by every process that Ray starts for it, and must lie where it can.
    On this machine Ray starts with the resources of `node`, by default those of `local_nodes`.

    Raises ConnectionError where it does not start, `UserError` where RAY_ADDRESS does not answer.
    """
    # Progress bars of Ray Data and Tune's own loggers, in this process and those it starts.
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # A slot's helper processes take no CPU; Ray would start only as many at once as it has CPUs,
    # and warn of the others.
    if ADDRESS not in os.environ:
        # The only node is this one: no process of each slot need watch for those that are to go.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "8")
    import ray
    import ray.data  # sets up its loggers, so that it must come before they are turned down

    # Where a token lies and that bars are off is nothing that a sweep's display should begin with.
    for chatty in ("ray._private.authentication", "ray.data", "ray.tune"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # Nobody reads what Tune keeps of an experiment; that a full disk has no room for it needs no
    # traceback.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)

    def name_cluster() -> None:
        # Train frees what a killed slot held by asking the state API, which knows of no address but
        # this one, and gives up where several clusters run on one machine. Within this function, as
        # importing this module would take every process of Ray seconds.
        os.environ[ADDRESS] = ray.get_runtime_context().gcs_address

    existing = ray.is_initialized()
    if not existing:
        try:
            ray.init(
                **_where(node),
                runtime_env={
                    "worker_process_setup_hook": name_cluster,
                    "env_vars": {PLUGINS: os.pathsep.join(map(str, plugin_files))},
                },
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except Exception as error:  # of no type of its own where a machine is too busy
            if ADDRESS in os.environ:
                raise UserError(
                    f"{ADDRESS}={os.environ[ADDRESS]}: Ray does not answer there ({error}). Name "
                    "a cluster that is running, or leave it out."
                ) from error
            raise ConnectionError(f"Ray did not start: {error}") from error
    try:
        yield
    finally:
        if not existing:
            ray.shutdown()


def starting() -> str:
    """What `ray_session` is about to do, for a person who waits for it."""
    if _connected():
        return "on the Ray cluster that this process is connected to"
    if ADDRESS in os.environ:
        return f"connecting to the Ray cluster at {os.environ[ADDRESS]}"
    return "starting Ray on this machine, which takes some seconds"


def _where(node: Mapping[str, float] | None) -> dict[str, Any]:
    """For `ray.init`: the cluster to connect to, else how large this machine's own is."""
    if ADDRESS in os.environ:
        return {"address": os.environ[ADDRESS]}
    node = node or local_nodes()[0]
    return {
        "address": "local",
        "num_cpus": int(node["CPU"]),
        "num_gpus": int(node["GPU"]),
        "object_store_memory": int(node[STORE]),
    }
