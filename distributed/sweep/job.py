"""The main job: a study and a prepared data set in, a run folder with a front in it out."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from trustsweep.data_pipelines import plugins
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.distributed.run import comparison
from trustsweep.distributed.run.checkpoints import discard_states
from trustsweep.distributed.run.exports import write_exports
from trustsweep.distributed.run.folder import Run, evaluation_plan, identifier
from trustsweep.distributed.run.halt import (
    INTERRUPTED,
    Halt,
    Halted,
    on_signals,
    on_threads,
    outside,
)
from trustsweep.distributed.run.ledger import Record, State
from trustsweep.distributed.run.optimism import counted, counts, front_estimates
from trustsweep.distributed.run.trivial import (
    save_figures,
    trivial_lines,
)
from trustsweep.distributed.search.stopping.policy import Verdict
from trustsweep.distributed.sweep.plan import Checked, PreparedSweep, examine
from trustsweep.distributed.sweep.progress import SweepProgress, front_table, on_test_table
from trustsweep.distributed.sweep.repeats import repeats
from trustsweep.distributed.sweep.resources import cluster_nodes, known_nodes, ray_session, starting
from trustsweep.distributed.sweep.resume import check_changes, lessons, teach
from trustsweep.distributed.version import VERSION, code_revision
from trustsweep.search_spaces.study import Study

if TYPE_CHECKING:
    from trustsweep.distributed.workers.slot import SlotSettings

#: Seconds for which a slot waits for storage that is away; see `distributed.workers.slot.PATIENCE`.
_PATIENCE = "TRUSTSWEEP_PATIENCE"
#: How often a trial is taken up again after the death of its slot; then the trial has failed.
_SLOT_DEATHS = 3
#: Set by Ray in a submitted job.
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def sweep(study: Study, out: Path, console: Console | None = None) -> Run:
    """Run a study and leave its front, models and report in `out`.

    Connects to the cluster named by RAY_ADDRESS (a submitted job has it), else starts Ray on this
    machine and ends it afterwards. Raises `UserError` before any trial starts for invalid
    input, and `Halted` where the sweep was interrupted.
    """
    console = console or Console()
    Run.refuse_used(out)
    if IN_JOB in os.environ and not out.is_absolute():
        console.print(
            f"warning: {out} lies in the job's own working directory, which Ray removes. "
            "Name a folder that stays with --out /...",
            style="yellow",
        )
    checked = _checked(study)
    learned = lessons(study, checked.manifest)
    run = Run.create(out)
    run.ledger.lock()
    if learned:
        teach(run.ledger, learned)
        console.print(
            f"The sampler starts from {len(learned)} trials of {study.search.warm_start}.",
            highlight=False,
        )
    _write_study(run, checked)
    try:
        return _go_on(run, checked, console, changes=[])
    except UserError:
        # Refused by a cluster that could not be checked before; nothing has run yet.
        if not run.ledger.sessions:
            shutil.rmtree(run.path)
        raise


def resume(
    path: Path,
    study: Study | None = None,
    accepted: Sequence[str] = (),
    console: Console | None = None,
) -> Run:
    """Resume a run where it was interrupted, whatever ended it.

    `study` is the run's own if left out; `accepted` are the keys in which it may differ (see
    `check_changes`). Raises as `sweep`, and `UserError` if the run cannot be resumed.
    """
    run = Run.open(path)
    run.ledger.lock()
    study = study or run.study
    checked = _checked(study)
    changes = check_changes(run, study, checked.manifest, accepted)
    _write_study(run, checked)
    return _go_on(run, checked, console or Console(), changes)


def _checked(study: Study) -> Checked:
    """With its resources where they can be planned without connecting to a cluster."""
    checked, nodes = examine(study), known_nodes()
    return checked if nodes is None else checked.on(nodes)


def _write_study(run: Run, checked: Checked) -> None:
    """Write the study and its data's manifest, from which the run can be resumed."""
    try:
        save_figures(run.path, checked.trivial.figures)
        run.write_study(checked.study, checked.manifest)
    except OSError as error:
        raise UserError(
            f"{run.path}: cannot be written to ({error}). Fix that and try again."
        ) from error


def _go_on(run: Run, checked: Checked, console: Console, changes: list[str]) -> Run:
    """Run the rest of a study. The run's lock is held."""
    halt = Halt()
    began = time.monotonic()
    earlier = max((r.ended for r in run.ledger.records.values()), default=0.0)
    interrupted = None
    say = partial(console.print, style="yellow")
    with on_signals(halt, say), on_threads(halt):
        try:
            # Once more: as it starts, Ray takes SIGTERM to itself.
            node = checked.nodes[0] if isinstance(checked, PreparedSweep) else None
            console.print(f"{checked.study.name}: {starting()}", highlight=False)
            with ray_session(run.keep(plugins.files()), node), on_signals(halt, say):
                _train_and_evaluate(run, checked, console, changes, halt, earlier)
        except Exception as error:
            if (reason := outside(error)) is None:
                raise
            halt.request(reason)
        except KeyboardInterrupt:
            raise Halted("interrupted", run.resume_line, INTERRUPTED) from None
        interrupted = halt.reason or None
        try:
            seconds = earlier + time.monotonic() - began
            run.ledger.close(seconds, interrupted)
            _report(run.reread(), console)
        except OSError as error:
            halt.request(str(error))
    if halt:
        raise Halted(halt.reason, run.resume_line, INTERRUPTED if halt.interrupted else 1)
    return run


def _train_and_evaluate(
    run: Run, checked: Checked, console: Console, changes: list[str], halt: Halt, earlier: float
) -> None:
    prepared = checked if isinstance(checked, PreparedSweep) else checked.on(cluster_nodes())
    run.ledger.session(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=VERSION,
        code=code_revision(),
        changes=changes,
    )
    _print_plan(prepared, run, console)
    _search(prepared, run, console, halt, earlier)
    if not halt:
        _evaluate_front(prepared, run, console)


def _print_plan(prepared: PreparedSweep, run: Run, console: Console) -> None:
    study, records = prepared.study, run.ledger.records.values()
    console.print(f"{study.name}: {study.search.trials} trials on {prepared.resources}")
    for note in prepared.notes:
        console.print(note, style="yellow", highlight=False, soft_wrap=True)
    if records:
        running = len(run.ledger.of(State.RUNNING))
        console.print(
            f"{len(records) - running} trials have ended and are kept; {running} resume from their "
            "last epoch.",
            highlight=False,
        )


def _search(
    prepared: PreparedSweep, run: Run, console: Console, halt: Halt, earlier: float
) -> None:
    """Run the trials through slots: those under way, the search, and its repeats."""
    from ray import tune

    from trustsweep.data_pipelines.streams import Mode, materialise
    from trustsweep.distributed.search.journal import Journal
    from trustsweep.distributed.search.sampling import Sampling
    from trustsweep.distributed.search.searcher import ParetoSearch
    from trustsweep.distributed.search.study_scheduler import StudyScheduler
    from trustsweep.distributed.sweep.callbacks import RunCallback
    from trustsweep.distributed.workers.slot import REQUEST, Slot

    study = prepared.study
    assert study.data is not None
    scheduler = StudyScheduler(study, prepared.objectives, run.ledger, halt)
    _settle(run, scheduler.pending)
    datasets = {}
    if prepared.resources.data.mode is not Mode.STREAMED:
        datasets = materialise(Folder(study.data).resolved(), (Split.TRAIN, Split.VAL))
    slot = tune.with_parameters(Slot, settings=_slot_settings(prepared, run), datasets=datasets)
    identify = identifier(study, prepared.manifest)
    sampling = Sampling(study, prepared.objectives, identify)
    journal = Journal(run.path, study.name, prepared.objectives, sampling.as_optuna)
    known = run.ledger.records.values()
    with SweepProgress(console, prepared.objectives, study.search.trials, known) as progress:

        def second_stage() -> list[Record]:
            wanted = repeats(study, run.reread().front, identify)
            new = [record for record in wanted if record.id not in run.ledger.records]
            progress.expect(len(new))
            return new

        searcher = ParetoSearch(
            study.search.trials,
            run.ledger,
            sampling,
            second_stage,
            halt,
        )
        tune.Tuner(
            tune.with_resources(slot, tune.PlacementGroupFactory([REQUEST])),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,  # the searcher says when there is no other
                max_concurrent_trials=prepared.resources.slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(run.ray),
                callbacks=[
                    RunCallback(run, prepared, journal, progress, scheduler.stopped, halt, earlier)
                ],
                # A slot that dies, with its node or without, takes its trial up again.
                failure_config=tune.FailureConfig(max_failures=_SLOT_DEATHS),
                verbose=0,
            ),
        ).fit()
    journal.write(run.ledger)


def _slot_settings(prepared: PreparedSweep, run: Run) -> SlotSettings:
    from trustsweep.data_pipelines.streams import SampleSource
    from trustsweep.distributed.workers.board import WorkerSettings
    from trustsweep.distributed.workers.slot import PATIENCE, SlotSettings

    plan = prepared.resources
    assert prepared.study.data is not None
    return SlotSettings(
        worker=WorkerSettings(
            manifest=prepared.manifest,
            plan=evaluation_plan(prepared.study),
            evaluation_batch_size=prepared.study.evaluation.batch_size,
            threads=plan.threads,
            fidelity=prepared.study.fidelity,
            scheduler=prepared.study.search.scheduler,
            prior=prepared.trivial.prior,
            source=SampleSource(
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
        patience=float(os.environ.get(_PATIENCE, PATIENCE)),
    )


def _settle(run: Run, verdicts: Mapping[str, Verdict]) -> None:
    """End the trials that were about to stop when the sweep was interrupted."""
    for name, verdict in verdicts.items():
        record = run.ledger.records[name]
        run.ledger.end(
            replace(
                record,
                state=State.STOPPED,
                reason=verdict.reason,
                dominated_by=verdict.dominated_by,
                ended=max(r.ended for r in run.ledger.records.values()),
                metrics=record.rungs[max(record.rungs)],
            )
        )
        discard_states(run.checkpoints / name)


def _evaluate_front(prepared: PreparedSweep, run: Run, console: Console) -> None:
    """Evaluate the front's models, and their repeats, on the test split by the same code."""
    from trustsweep.distributed.sweep.test_evaluation import evaluate_on_test

    identify = identifier(prepared.study, prepared.manifest)
    front = run.reread().front
    names = [record.id for record in front]
    names += [record.id for record in repeats(prepared.study, front, identify)]
    known = [run.ledger.records[n] for n in dict.fromkeys(names) if n in run.ledger.records]
    models = [record for record in known if record.state is State.COMPLETED]
    if models and prepared.manifest.split_counts.get(Split.TEST):
        with console.status(f"Evaluating {len(models)} model(s) on the test split"):
            evaluate_on_test(prepared, run, models)


def _report(run: Run, console: Console) -> None:
    """Write exports and report, and print the summary."""
    from trustsweep.distributed.report.page import write_report

    write_exports(run)
    page = write_report(run)
    completed = len(run.completed)
    if run.front:
        title = f"The front: {len(run.front)} of {completed} models, by validation metrics"
        console.print(front_table(run.front, run.objectives, title, run.warnings))
        _print_test_results(run, console)
    elif completed:
        bounds = ", ".join(map(str, run.constraints))
        console.print(f"No completed trial meets {bounds}, so there is no front.", highlight=False)
    else:
        console.print("No trial completed, so there is no front; trials.csv says why.")
    for line in trivial_lines(run.remarks, completed):
        console.print(line, style="yellow", highlight=False, soft_wrap=True)
    for record in run.ledger.of(State.FAILED):
        console.print(f"failed: {record.id} ({record.reason})", highlight=False)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


def _print_test_results(run: Run, console: Console) -> None:
    """Print the front's test estimates and its comparison with the baseline, where available."""
    from trustsweep.distributed.report.sections.seeds import findings
    from trustsweep.distributed.report.wording import attack_lines

    if chosen := front_estimates(run):
        console.print(on_test_table(chosen))
        console.print(counted(counts(run)), highlight=False)
    for line in attack_lines(run):
        console.print(line, highlight=False, soft_wrap=True)
    again = comparison.repeats(run)
    if again.repeated:
        for sentence in findings(again):
            console.print(sentence, highlight=False)
