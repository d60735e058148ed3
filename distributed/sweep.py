"""The main job: a study and a prepared data set in, a run folder with a front in it out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from data_pipelines.errors import UserError
from data_pipelines.schema import Manifest, Split
from data_pipelines.shards import load_manifest
from data_pipelines.storage import Folder
from distributed import resources
from distributed.checks import check, evaluation_plan, objectives_of
from distributed.front import Objective
from distributed.ledger import Record, State, trial_id
from distributed.progress import Progress, front_table
from distributed.run import Run
from distributed.version import VERSION
from search_spaces.study import Study

if TYPE_CHECKING:
    from distributed.slot import SlotSettings

#: How a Ray cluster is named to this process; `ray job submit` sets it.
ADDRESS = "RAY_ADDRESS"
#: Set by Ray in a submitted job.
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@dataclass(frozen=True)
class Prepared:
    """A study that was checked against its data and its cluster; nothing has started yet."""

    study: Study
    manifest: Manifest
    objectives: list[Objective]
    resources: resources.ResourcePlan


def prepare(study: Study, nodes: list[dict[str, float]]) -> Prepared:
    """Check everything that can be wrong before a trial starts.

    Raises `UserError` naming the key or the file.
    """
    if study.data is None:
        raise UserError("data: name a prepared folder with --data, or under `data` in the study.")
    manifest = load_manifest(study.data)
    check(study, manifest)
    return Prepared(
        study=study,
        manifest=manifest,
        objectives=objectives_of(study),
        resources=resources.plan(
            study.resources,
            study.search.trials,
            nodes,
            data_bytes=sum(manifest.stored_bytes.get(s, 0) for s in (Split.TRAIN, Split.VAL)),
        ),
    )


def nodes() -> list[dict[str, float]]:
    """The nodes that a sweep would run on: of RAY_ADDRESS's cluster, else this machine."""
    if ADDRESS not in os.environ:
        return resources.local_nodes()
    with ray_session():
        return resources.cluster_nodes()


def sweep(study: Study, out: Path, console: Console | None = None) -> Run:
    """Run a study and leave its front, models and report in `out`.

    Connects to the cluster named by RAY_ADDRESS (a submitted job has it), else starts Ray on this
    machine and ends it afterwards. Raises `UserError` before any trial starts for what the user
    can mend.
    """
    console = console or Console()
    Run.refuse_used(out)
    if IN_JOB in os.environ and not out.is_absolute():
        console.print(
            f"warning: {out} lies in the job's own working directory, which Ray removes. "
            "Name a folder that stays with --out /...",
            style="yellow",
        )
    if ADDRESS not in os.environ:
        prepare(study, resources.local_nodes())  # before the seconds that Ray takes to start
    with ray_session():
        prepared = prepare(study, resources.cluster_nodes())
        run = Run.create(out)
        run.write_study(study, prepared.manifest)
        console.print(f"{study.name}: {study.search.trials} trials on {prepared.resources}")
        started = time.monotonic()
        _search(prepared, run, console)
        _judge_front(prepared, run, console)
        front = run.write_views(study, seconds=time.monotonic() - started)
    _report(run, front, prepared.objectives, console)
    return run


def _search(prepared: Prepared, run: Run, console: Console) -> None:
    """Run the trials through slots."""
    from ray import tune

    from data_pipelines.streams import Mode, materialise
    from distributed.callbacks import RunCallback
    from distributed.search import JOURNAL, ParetoSearch
    from distributed.slot import REQUEST, Slot

    study, fingerprint = prepared.study, prepared.manifest.fingerprint
    assert study.data is not None
    datasets = {}
    if prepared.resources.data.mode is not Mode.STREAMED:
        datasets = materialise(Folder(study.data).resolved(), (Split.TRAIN, Split.VAL))
    slot = tune.with_parameters(Slot, settings=_slot_settings(prepared, run), datasets=datasets)
    searcher = ParetoSearch(
        study,
        prepared.objectives,
        run.path / JOURNAL,
        identify=lambda config: trial_id(config, fingerprint, VERSION),
    )
    with Progress(console, prepared.objectives, study.search.trials) as progress:
        tune.Tuner(
            tune.with_resources(slot, tune.PlacementGroupFactory([REQUEST])),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=study.search.trials,
                max_concurrent_trials=prepared.resources.slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(run.ray),
                callbacks=[RunCallback(run, prepared, progress)],
                verbose=0,
            ),
        ).fit()


def _slot_settings(prepared: Prepared, run: Run) -> SlotSettings:
    from data_pipelines.streams import Source
    from distributed.slot import SlotSettings
    from distributed.worker import WorkerSettings

    plan = prepared.resources
    assert prepared.study.data is not None
    return SlotSettings(
        worker=WorkerSettings(
            manifest=prepared.manifest,
            plan=evaluation_plan(prepared.study),
            evaluation_batch_size=prepared.study.evaluation.batch_size,
            threads=plan.threads,
            source=Source(
                mode=plan.data.mode,
                location=str(Folder(prepared.study.data).resolved()),
                tasks=plan.stream_tasks,
                store_bytes=max(1, plan.data.limit // plan.ranks),
            ),
        ),
        workers=plan.workers,
        resources_per_worker=plan.per_worker,
        checkpoints=run.checkpoints,
        storage=run.ray,
    )


def _judge_front(prepared: Prepared, run: Run, console: Console) -> None:
    """Evaluate the front's models on the test split, once each, by the same code."""
    from distributed.judge import judge

    front = run.front(prepared.objectives, prepared.study.constraints)
    if front and prepared.manifest.split_counts.get(Split.TEST):
        with console.status(f"Evaluating {len(front)} model(s) of the front on the test split"):
            judge(prepared, run, front)


def _report(run: Run, front: list[Record], objectives: list[Objective], console: Console) -> None:
    from distributed.report import write_report

    page = write_report(run.path)
    ledger = run.ledger
    if front:
        title = f"The front: {len(front)} of {len(ledger.of(State.COMPLETED))} models"
        console.print(front_table(front, objectives, title))
    else:
        console.print("No trial completed, so there is no front; trials.csv says why.")
    for record in ledger.of(State.FAILED):
        console.print(f"failed: {record.id} ({record.reason})", highlight=False)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray for the length of a sweep. A cluster that was already there is left as it is."""
    # Progress bars of Ray Data and Tune's own loggers, in this process and those it starts.
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # A slot's helper processes take no CPU; Ray would start only as many at once as it has CPUs,
    # and warn of the others.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "8")
    import ray
    import ray.data  # sets up its loggers, so that it must come before they are turned down

    # Where a token lies and that bars are off is nothing that a sweep's display should begin with.
    for chatty in ("ray._private.authentication", "ray.data", "ray.tune"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    existing = ray.is_initialized()
    if not existing:
        ray.init(
            address=os.environ.get(ADDRESS, "local"),
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    try:
        yield
    finally:
        if not existing:
            ray.shutdown()
