"""Early stopping for several objectives: how a study gets the policy that it names."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trustsweep.data_pipelines.errors import UserError
from trustsweep.search_spaces.policies import POLICIES

if TYPE_CHECKING:
    from trustsweep.distributed.search.stopping.policy import Bound, Policy
    from trustsweep.distributed.statistics.front import Objective
    from trustsweep.search_spaces.study import Scheduler

#: What every policy gets.
_GIVEN = ("objectives", "constraints", "rungs", "seed", "settings")


def make_policy(
    settings: Scheduler,
    objectives: Sequence[Objective],
    constraints: Sequence[Bound] = (),
    seed: int = 0,
) -> Policy:
    """The policy that a study names. It gets the settings that its constructor has by name.

    Raises `UserError` for `Scheduler.settings` that it does not have.
    """
    policy = POLICIES[settings.policy]
    takes = inspect.signature(policy).parameters
    own = [name for name in takes if name not in _GIVEN]
    if unknown := sorted(settings.settings.keys() - {*own}):
        raise UserError(
            f"search.scheduler.settings: {settings.policy} has no setting {unknown[0]!r}. Known: "
            f"{', '.join(own) or 'none'}."
        )
    options = {name: value for name, value in settings if name in takes and name not in _GIVEN}
    options |= settings.settings
    made: Policy = policy(objectives, constraints, rungs=len(settings.shares), seed=seed, **options)
    return made
