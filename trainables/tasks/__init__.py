"""Tasks, one object each: what a model predicts, and everything that depends on it.

`trainables.registry.TASKS` lists them, free of torch.
"""

from functools import cache

from trustsweep.data_pipelines.schema import TaskName
from trustsweep.trainables.registry import TASKS
from trustsweep.trainables.tasks.base import AttackLosses, OutcomeTask, SampleTask, Task

__all__ = ["AttackLosses", "OutcomeTask", "SampleTask", "Task", "task_named"]


@cache
def task_named(name: TaskName | str) -> Task:
    """The task of that name. Raises `UserError` for one that no model can have yet."""
    task: Task = TASKS[name]()
    return task
