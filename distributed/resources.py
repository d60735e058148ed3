"""What a sweep needs against what the cluster has, worked out before anything starts.

Ray waits without a word for resources that never come; this says so at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_pipelines.errors import UserError
from search_spaces.study import Resources


@dataclass(frozen=True)
class ResourcePlan:
    """How many slots run at once and what each of their workers holds."""

    slots: int
    workers: int
    per_worker: dict[str, float]
    cluster: dict[str, float]

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
        return f"{self.slots} slot(s) x {self.workers} worker(s) x {each}, of {total}"


def local_nodes() -> list[dict[str, float]]:
    """This machine as the only node, without starting Ray."""
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [{"CPU": float(cpus or 1), "GPU": float(torch.cuda.device_count())}]


def cluster_nodes() -> list[dict[str, float]]:
    """The living nodes of the Ray cluster that this process is connected to."""
    import ray

    return [
        {"CPU": node["Resources"].get("CPU", 0.0), "GPU": node["Resources"].get("GPU", 0.0)}
        for node in ray.nodes()
        if node["Alive"]
    ]


def plan(resources: Resources, trials: int, nodes: Sequence[Mapping[str, float]]) -> ResourcePlan:
    """Fit slots into the cluster.

    Workers are whole on one node. A slot's own processes take no CPU; the data set is read before
    the slots start, with all of the cluster's CPUs. Raises `UserError` where it cannot fit.
    """
    total = {key: sum(node.get(key, 0.0) for node in nodes) for key in ("CPU", "GPU")}
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if total["GPU"] >= 1 else 0.0
    worker = {"CPU": resources.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
    room = sum(
        min(int(node.get(key, 0.0) / need + 1e-9) for key, need in worker.items()) for node in nodes
    )
    fitting = room // resources.workers
    wanted = 1 if resources.slots == "auto" else resources.slots
    if total["CPU"] < 1 or fitting < wanted:
        each = " + ".join(f"{need:g} {key}" for key, need in worker.items())
        has = ", ".join(f"{value:g} {key}" for key, value in total.items())
        raise UserError(
            f"resources: {wanted} slot(s) x {resources.workers} worker(s) x {each} do not fit: the "
            f"cluster has {has} on {len(nodes)} node(s). Lower resources.slots, resources.workers "
            "or what a worker takes, or add nodes."
        )
    slots = min(trials, fitting) if resources.slots == "auto" else resources.slots
    return ResourcePlan(slots, resources.workers, worker, total)
