import pytest

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.sweep.resources import local_nodes, plan
from trustsweep.search_spaces.study import Resources

LAPTOP = [{"CPU": 2.0, "GPU": 0.0}]
A100S = [{"CPU": 64.0, "GPU": 4.0}, {"CPU": 64.0, "GPU": 4.0}]


def test_auto_fills_the_cluster_but_not_beyond_the_trials():
    assert plan(Resources(), 12, LAPTOP).slots == 2
    assert plan(Resources(), 1, LAPTOP).slots == 1
    assert plan(Resources(workers=2), 12, LAPTOP).slots == 1
    on_gpus = plan(Resources(), 100, A100S)
    assert (on_gpus.slots, on_gpus.per_worker["GPU"]) == (8, 1.0)
    assert plan(Resources(workers=8), 100, A100S).slots == 1
    assert plan(Resources(gpus_per_worker=0.5), 100, A100S).slots == 16


def test_a_worker_is_whole_on_one_node():
    two_small = [{"CPU": 2.0}, {"CPU": 2.0}]
    assert plan(Resources(cpus_per_worker=2), 9, two_small).slots == 2
    with pytest.raises(UserError, match="do not fit"):
        plan(Resources(cpus_per_worker=3), 9, two_small)


@pytest.mark.parametrize(
    "wanted",
    [Resources(slots=3), Resources(workers=3), Resources(gpus_per_worker=1.0)],
)
def test_more_than_the_cluster_has_is_refused_in_one_line(wanted):
    with pytest.raises(UserError) as error:
        plan(wanted, 12, LAPTOP)
    assert "the cluster has 2 CPU" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_streamed_data_set_keeps_a_cpu_beside_every_worker():
    streamed = Resources(data="streamed")
    on_laptop = plan(streamed, 12, LAPTOP)
    assert (on_laptop.slots, on_laptop.stream_tasks) == (1, 2)
    assert plan(streamed, 100, A100S).slots == 8
    assert plan(Resources(data="streamed", cpus_per_worker=15), 100, A100S).slots == 8
    crowded = Resources(data="streamed", cpus_per_worker=16, slots=8)
    with pytest.raises(UserError, match="CPU for its data stream"):
        plan(crowded, 100, A100S)
    assert plan(crowded.model_copy(update={"data": "materialised"}), 100, A100S).slots == 8
    with pytest.raises(UserError, match="CPU for its data stream"):
        plan(Resources(data="streamed", workers=2), 12, LAPTOP)


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_streams_share_the_cpus_that_workers_leave(slots):
    found = plan(Resources(data="streamed", slots=slots, cpus_per_worker=4), 100, A100S)
    assert 0.5 * found.stream_tasks * slots + 4 * slots <= 128
    assert found.stream_tasks >= 2


def test_the_mode_follows_the_smallest_node_and_its_gpu():
    nodes = [
        {"CPU": 8.0, "GPU": 1.0, "object_store_memory": 10e9, "gpu_bytes": 40e9},
        {"CPU": 8.0, "GPU": 1.0, "object_store_memory": 4e9, "gpu_bytes": 80e9},
    ]

    def mode(data_bytes: float, **more: float) -> str:
        return plan(Resources(**more), 4, nodes, int(data_bytes)).data.mode

    assert mode(1e9) == "resident"
    assert mode(1e9, gpus_per_worker=0) == "materialised"
    assert mode(1e9, gpus_per_worker=0.05) == "materialised"
    assert mode(2.2e9) == "streamed"
    assert plan(Resources(), 4, nodes, 10**9).data.limit == 2 * 2**30


def test_this_machine_knows_what_ray_would_take():
    (node,) = local_nodes()
    assert node["object_store_memory"] > 1e6
    assert plan(Resources(), 1, [node], 1000).data.mode in ("materialised", "resident")
