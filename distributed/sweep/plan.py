"""A study against its data and its cluster: all that can be said before anything is started."""

from __future__ import annotations

from dataclasses import dataclass

from trustsweep.data_pipelines.building.shards import load_manifest
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.distributed.run.trivial import Trivial, read_trivial
from trustsweep.distributed.statistics.front import Objective
from trustsweep.distributed.sweep.checks import check, check_defined, objectives_of, task_of
from trustsweep.distributed.sweep.resources import ResourcePlan, plan
from trustsweep.search_spaces.study import Study


@dataclass(frozen=True)
class Prepared:
    """A study that was checked against its data and its cluster; nothing has started yet."""

    study: Study
    manifest: Manifest
    objectives: list[Objective]
    resources: ResourcePlan
    trivial: Trivial


def prepare(
    study: Study, nodes: list[dict[str, float]], trivial: Trivial | None = None
) -> Prepared:
    """Check everything that can be wrong before a trial starts.

    `trivial` is of the same data, where it is known already: labels and masks are read once.
    Raises `UserError` naming the key or the file.
    """
    if study.data is None:
        raise UserError("data: name a prepared folder with --data, or under `data` in the study.")
    manifest = load_manifest(study.data)
    check(study, manifest)
    if trivial is None:
        trivial = read_trivial(Folder(study.data), manifest, task_of(study, manifest))
    check_defined(study, trivial.figures[Split.VAL], Split.VAL)
    return Prepared(
        trivial=trivial,
        study=study,
        manifest=manifest,
        objectives=objectives_of(study, task_of(study, manifest)),
        resources=plan(
            study.resources,
            max(study.search.trials, study.seeds * (1 + len(study.references()))),
            nodes,
            data_bytes=sum(manifest.stored_bytes.get(s, 0) for s in (Split.TRAIN, Split.VAL)),
        ),
    )
