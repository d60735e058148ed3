"""Checks and plans a study against its data and cluster before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from trustsweep.data_pipelines.building.shards import load_manifest
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.distributed.run.folder import objectives_of
from trustsweep.distributed.run.trivial import TrivialPredictors, read_trivial
from trustsweep.distributed.statistics.front import Objective
from trustsweep.distributed.sweep.checks import (
    check,
    check_classes,
    check_defined,
    check_sighted,
    task_of,
)
from trustsweep.distributed.sweep.resources import ResourcePlan, plan
from trustsweep.distributed.sweep.resume import lessons
from trustsweep.search_spaces.study import Study


@dataclass(frozen=True)
class Checked:
    """A study that was checked against its data.

    Attributes:
        notes: What to know of the data before a trial starts, a sentence each.
    """

    study: Study
    manifest: Manifest
    objectives: list[Objective]
    trivial: TrivialPredictors
    notes: list[str] = field(default_factory=list, kw_only=True)

    def on(self, nodes: list[dict[str, float]]) -> PreparedSweep:
        """The study with its resources on these nodes. Raises `UserError` if they do not fit."""
        study, stored = self.study, self.manifest.stored_bytes
        resources = plan(
            study.resources,
            max(study.search.trials, study.seeds * (1 + len(study.references()))),
            nodes,
            data_bytes=sum(stored.get(split, 0) for split in (Split.TRAIN, Split.VAL)),
        )
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return PreparedSweep(**known, resources=resources, nodes=nodes)


@dataclass(frozen=True)
class PreparedSweep(Checked):
    """A study that was checked against its data and its cluster; nothing has started yet.

    Attributes:
        nodes: Of the cluster, by `resources.nodes`.
    """

    resources: ResourcePlan
    nodes: list[dict[str, float]]


def examine(study: Study) -> Checked:
    """Check everything that can be wrong before a trial starts, but for the resources.

    Reads the labels or masks of the data, and nothing else of them. Raises `UserError` naming the
    key or the file.
    """
    if study.data is None:
        raise UserError("data: name a prepared folder with --data, or under `data` in the study.")
    manifest = load_manifest(study.data)
    check(study, manifest)
    task = task_of(study, manifest)
    trivial = read_trivial(Folder(study.data), manifest, task)
    check_defined(study, trivial.figures[Split.VAL], Split.VAL)
    check_sighted(study, task)
    notes = check_classes(study, manifest, task)
    return Checked(study, manifest, objectives_of(study), trivial, notes=notes)


def prepare(study: Study, nodes: list[dict[str, float]]) -> PreparedSweep:
    """Check everything that can be wrong before the first trial of a new run.

    Raises as `examine`, `plan` and `lessons`.
    """
    checked = examine(study)
    lessons(study, checked.manifest)
    return checked.on(nodes)
