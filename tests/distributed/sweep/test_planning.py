"""What a sweep works out, it works out once, and it connects once to the cluster it runs on."""

from collections import Counter
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.run.ledger import State
from trustsweep.distributed.sweep import job, plan, resources
from trustsweep.search_spaces.study import Study, apply_overrides, parse

RAW = {
    "name": "once",
    "methods": ["unet"],
    "objectives": ["dice_lesion_area", "clean.brier"],
    "space": {"epochs": 1, "width": 4, "regime": "none", "batch_size": 32},
    "search": {"trials": 1, "sampler": "random", "scheduler": "none"},
    "evaluation": {"epsilons": [0, 0.01], "attack": "fgsm", "final": "fast", "corruptions": []},
}


def study(data: Path, *overrides: str) -> Study:
    return parse(apply_overrides({**RAW, "data": str(data)}, overrides), "once.yaml")


class Counted:
    """Calls of functions, which are made all the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        for where, name in (
            (ray, "init"),
            (plan, "plan"),
            (plan, "check"),
            (plan, "read_trivial"),
            (job, "lessons"),
            (resources, "local_nodes"),
        ):
            self._count(monkeypatch, where, name)

    def _count(self, monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> None:
        real = getattr(where, name)

        def call(*arguments: object, **named: object) -> object:
            self.calls[name] += 1
            return real(*arguments, **named)

        monkeypatch.setattr(where, name, call)


ONCE = {"init": 1, "plan": 1, "check": 1, "read_trivial": 1, "lessons": 1}


@pytest.mark.slow
def test_on_a_cluster(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        counted = Counted(monkeypatch)
        run = job.sweep(study(phantoms), tmp_path / "run")
        assert counted.calls == ONCE
        assert run.ledger.of(State.COMPLETED)
        # What only the cluster can refuse leaves nothing behind that would be in the way.
        with pytest.raises(UserError, match=r"resources: 3 slot.*has 2 CPU"):
            job.sweep(study(phantoms, "resources.slots=3"), tmp_path / "other")
        assert not (tmp_path / "other").exists()
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_on_this_machine_as_large_as_it_was_planned(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (planned,) = resources.local_nodes()
    with resources.ray_session(node=planned):
        (started,) = resources.cluster_nodes()
    assert {key: started[key] for key in planned} == planned
    counted = Counted(monkeypatch)
    run = job.sweep(study(phantoms), tmp_path / "run")
    assert counted.calls == {**ONCE, "local_nodes": 1}
    assert run.ledger.of(State.COMPLETED)


def test_what_does_not_fit_this_machine_is_refused_without_ray(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    counted = Counted(monkeypatch)
    with pytest.raises(UserError, match=r"resources: 4096 slot"):
        job.sweep(study(phantoms, "resources.slots=4096"), tmp_path / "run")
    assert "init" not in counted.calls
    assert not (tmp_path / "run").exists()
