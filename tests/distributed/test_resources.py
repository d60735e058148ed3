import pytest

from data_pipelines.errors import UserError
from distributed.resources import plan
from search_spaces.study import Resources

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
