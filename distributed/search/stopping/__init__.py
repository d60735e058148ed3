"""Early stopping for several objectives: the policies, one line each, and how a study gets one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trustsweep.data_pipelines.registry import Registry

if TYPE_CHECKING:
    from trustsweep.distributed.search.stopping.policy import Bound, Policy
    from trustsweep.distributed.statistics.front import Objective
    from trustsweep.search_spaces.study import Scheduler

POLICIES = Registry(
    "stopping policy",
    {
        "forecast": "trustsweep.distributed.search.stopping.forecast:Forecast",
        "halving": "trustsweep.distributed.search.stopping.halving:Halving",
        "none": "trustsweep.distributed.search.stopping.unstopped:Unstopped",
    },
)


def make_policy(
    settings: Scheduler,
    objectives: Sequence[Objective],
    constraints: Sequence[Bound] = (),
    seed: int = 0,
) -> Policy:
    """The policy that a study names. It gets the settings that its constructor has by name."""
    policy = POLICIES[settings.policy]
    takes = inspect.signature(policy).parameters
    options = {name: value for name, value in settings if name in takes and name != "rungs"}
    made: Policy = policy(objectives, constraints, rungs=len(settings.shares), seed=seed, **options)
    return made
