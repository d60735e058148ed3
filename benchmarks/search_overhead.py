"""What a search itself costs: time, memory and files of thousands of trials that do nothing.

Searcher, sampler, scheduler, ledger, exports, journal, TensorBoard and the lines of a job's log
are driven as Tune drives them, in one process and without workers: 4 epochs a trial, rungs after
the first two, 2 objectives and one constraint by a formula. Trials are drawn at random and stopped
by the default of a study; then fewer with another sampler (TPE), and as many of these with the
other rule of stopping. Beside it, in the same run: plain Optuna (ask, suggest, tell) with its own
journal in a file.

    python benchmarks/search_overhead.py [--trials 10000] [--policy NAME] [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.tune.schedulers import TrialScheduler
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from trustsweep.data_pipelines.building.prepare import prepare as prepare_data
from trustsweep.distributed.report.page import write_report
from trustsweep.distributed.run.exports import write_exports
from trustsweep.distributed.run.folder import Run, identifier
from trustsweep.distributed.run.halt import Halt
from trustsweep.distributed.run.ledger import Ledger
from trustsweep.distributed.search.journal import Journal
from trustsweep.distributed.search.sampling import Sampling, directions, make_sampler
from trustsweep.distributed.search.searcher import ParetoSearch
from trustsweep.distributed.search.study_scheduler import StudyScheduler
from trustsweep.distributed.sweep import callbacks, resources
from trustsweep.distributed.sweep.callbacks import RunCallback
from trustsweep.distributed.sweep.plan import PreparedSweep, prepare
from trustsweep.distributed.sweep.progress import SweepProgress
from trustsweep.distributed.version import VERSION, code_revision
from trustsweep.distributed.workers.outcome import CONFIG, FINISHED, METRICS, RUNG
from trustsweep.search_spaces.policies import POLICIES
from trustsweep.search_spaces.study import Scheduler, Study
from trustsweep.trainables.metrics.catalog import COSTS

EPOCHS = 4
MARKS = (1_000, 5_000, 10_000)
#: Of the rows beside the first: TPE, and the other rule of stopping.
FEWER = 1_000
DEFAULT = Scheduler().policy
#: What is timed, by the name of its row. What one calls of another counts for the other alone.
PARTS: dict[str, list[tuple[Any, tuple[str, ...]]]] = {
    "sampler (Optuna)": [(Sampling, ("draw", "tell"))],
    "searcher": [(ParetoSearch, ("__init__", "suggest", "on_trial_complete"))],
    "scheduler": [(StudyScheduler, ("__init__", "on_trial_result", "on_trial_complete"))],
    "ledger": [(Ledger, ("start", "epoch", "end"))],
    "callbacks": [(RunCallback, ("on_trial_start", "on_trial_result"))],
    "TensorBoard": [(SummaryWriter, ("__init__", "add_scalar", "add_hparams", "close"))],
    "display": [(SweepProgress, ("started", "epoch", "ended"))],
    "exports": [(callbacks, ("write_exports",))],
    "journal": [(Journal, ("write",))],
}


class PartClock:
    """Seconds by part, of watched functions that may call each other."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Time a method of a class or an object from now on."""
        plain = getattr(owner, method)

        @wraps(plain)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            self._inner.append(0.0)
            try:
                return plain(*arguments, **named)
            finally:
                took = time.perf_counter() - began
                self.seconds[part] += took - self._inner.pop()
                self._inner[-1] += took

        setattr(owner, method, timed)


@dataclass
class Handle:
    """As much of a Tune trial as a callback asks for."""

    config: dict[str, Any]


class Session:
    """One session of a sweep, from what lies in its folder."""

    def __init__(self, run: Run, prepared: PreparedSweep, console: Console) -> None:
        study, objectives = prepared.study, prepared.objectives
        halt = Halt()
        sampling = Sampling(study, objectives, identifier(study, prepared.manifest))
        self._rungs = study.search.scheduler.rung_epochs(EPOCHS)
        self._scheduler = StudyScheduler(study, objectives, run.ledger, halt)
        self._search = ParetoSearch(study.search.trials, run.ledger, sampling, list, halt)
        self.journal = Journal(run.path, study.name, objectives, sampling.as_optuna)
        progress = SweepProgress(
            console, objectives, study.search.trials, run.ledger.records.values()
        )
        self._callback = RunCallback(
            run, prepared, self.journal, progress, self._scheduler.stopped, halt, earlier=0.0
        )

    def trial(self, number: int) -> None:
        """A trial from its suggestion to its end, in the order of Tune's calls."""
        name = f"tune-{number}"
        suggestion = self._search.suggest(name)
        assert isinstance(suggestion, dict)
        trial: Any = Handle(suggestion)
        controller: Any = None
        self._callback.on_trial_start(0, [], trial)
        for epoch in range(1, EPOCHS + 1):
            result = self._result(suggestion[CONFIG], epoch)
            decision = self._scheduler.on_trial_result(controller, trial, result)
            self._callback.on_trial_result(0, [], trial, result)
            if decision == TrialScheduler.STOP:
                break
        self._scheduler.on_trial_complete(controller, trial, result)
        self._search.on_trial_complete(name, result)

    def _result(self, config: dict[str, Any], epoch: int) -> dict[str, Any]:
        """Better with each epoch; some learning rate is right for the one, some for the other."""
        ends = np.log10([3e-4, 1e-2])
        place = float((np.log10(config["learning_rate"]) - ends[0]) / (ends[1] - ends[0]))
        other = float(config["corruption_fraction"])
        left = (EPOCHS - epoch) / EPOCHS
        return {
            METRICS: {
                "dice_lesion_area": max(0.0, 0.9 - (place - 0.2) ** 2 - other**2 - 0.5 * left),
                "clean.ece": 0.02 + 0.3 * (place - 0.8) ** 2 + 0.1 * other + 0.2 * left,
                "skill.clean.dice_lesion": 0.9 - 0.5 * left,
                "train.loss": 0.1 + left,
                **dict.fromkeys(COSTS, float(epoch)),
            },
            FINISHED: epoch == EPOCHS,
            RUNG: self._rungs.get(epoch),
            "training_iteration": epoch,
        }


def study_of(sampler: str, trials: int, policy: str, data: Path) -> Study:
    return Study.model_validate(
        {
            "name": f"overhead-{sampler}",
            "methods": ["unet", "evidential-unet"],
            "data": str(data),
            "space": {"epochs": EPOCHS},
            "objectives": ["dice_lesion_area", "clean.ece"],
            "constraints": ["skill.clean.dice_lesion >= 0.5"],
            "search": {
                "trials": trials,
                "sampler": sampler,
                "scheduler": {"policy": policy},
            },
        }
    )


def begin(study: Study, folder: Path) -> tuple[Run, PreparedSweep]:
    prepared = prepare(study, resources.local_nodes())
    run = Run.create(folder)
    run.write_study(study, prepared.manifest)
    run.ledger.session(version=VERSION, code=code_revision())
    return run, prepared


def megabytes() -> float:
    """Resident memory of this process."""
    gc.collect()
    return float(psutil.Process().memory_info().rss / 2**20)


def search(
    study: Study, folder: Path, clock: PartClock, console: Console
) -> tuple[PreparedSweep, list[dict[str, Any]]]:
    """Run the whole study; at each mark, what its trials since the last took, and the memory."""
    run, prepared = begin(study, folder)
    session = Session(run, prepared, console)
    rows = []
    before, done, processor = Counter(clock.seconds), 0, time.process_time()
    for number in range(study.search.trials):
        session.trial(number)
        if number + 1 in (*MARKS, study.search.trials):
            count = number + 1 - done
            parts = {part: (clock.seconds[part] - before[part]) / count for part in PARTS}
            total = sum(parts.values())
            row = {"trials": number + 1, "seconds": total, "parts": parts}
            row["processor_seconds"] = (time.process_time() - processor) / count
            rows.append({**row, "rss_mb": megabytes()})
            before, done, processor = Counter(clock.seconds), number + 1, time.process_time()
    session.journal.write(run.ledger)
    write_exports(run.reread())
    return prepared, rows


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def taken_up(
    prepared: PreparedSweep, folder: Path, clock: PartClock, console: Console
) -> dict[str, float]:
    """Seconds until a finished run could go on, and until its exports and report are there anew."""
    run, ledger = timed(lambda: Run.open(folder))
    before = Counter(clock.seconds)
    session = Session(run, prepared, console)
    _, journal = timed(lambda: session.journal.write(run.ledger))
    _, exports = timed(lambda: write_exports(run.reread()))
    page, report = timed(lambda: write_report(Run.open(folder)))
    return {
        "ledger": ledger,
        **{part: clock.seconds[part] - before[part] for part in ("searcher", "scheduler")},
        "journal": journal,
        "exports": exports,
        "report": report,
        "report_mb": page.stat().st_size / 2**20,
        "ledger_mb": (folder / "ledger.jsonl").stat().st_size / 2**20,
    }


def plain_optuna(study: Study, prepared: PreparedSweep, file: Path) -> dict[str, float]:
    """Seconds that a trial costs in Optuna with its own journal, over as many trials."""
    peer = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(file))),
        directions=directions(prepared.objectives),
        sampler=make_sampler(study.search, study.search.seed),
    )
    space = study.search_space()
    count = study.search.trials
    began, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        trial = peer.ask()
        place = float(space.suggest(trial)["learning_rate"])
        peer.tell(trial, [place, 1 - place])
    return {
        "seconds": (time.perf_counter() - began) / count,
        "processor_seconds": (time.process_time() - processor) / count,
    }


def print_rows(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A column for each mark, a row for each part."""
    print(f"\n{title}: milliseconds a trial since the mark before, and resident memory")
    print(f"{'trials':>24}" + "".join(f"{row['trials']:>10}" for row in rows))
    for part in PARTS:
        print(f"{part:>24}" + "".join(f"{1000 * row['parts'][part]:>10.2f}" for row in rows))
    print(f"{'all':>24}" + "".join(f"{1000 * row['seconds']:>10.2f}" for row in rows))
    # The rest is waiting: for the disk, and on a machine that has other things to do.
    busy = "".join(f"{1000 * row['processor_seconds']:>10.2f}" for row in rows)
    print(f"{'of it on the processor':>24}{busy}")
    print(f"{'MB':>24}" + "".join(f"{row['rss_mb']:>10.0f}" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=MARKS[-1])
    parser.add_argument(
        "--policy", default=DEFAULT, choices=list(POLICIES), help=f"{DEFAULT} if left out"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="a few dozen trials")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials = 40
    clock = PartClock()
    for part, owners in PARTS.items():
        for owner, methods in owners:
            for method in methods:
                clock.watch(owner, method, part)
    with (
        tempfile.TemporaryDirectory(prefix="trustsweep-benchmark-") as temporary,
        Path(os.devnull).open("w") as nowhere,
    ):
        folder, console = Path(temporary), Console(file=nowhere, width=160)
        data = folder / "data"
        prepare_data(None, "phantoms", data, size=32, count=96)
        study = study_of("random", arguments.trials, arguments.policy, data)
        prepared, rows = search(study, folder / "random", clock, console)
        figures: dict[str, Any] = {"policy": arguments.policy, "random": rows}
        print_rows(f"random, {arguments.policy}", rows)
        if len(rows) > 1:
            grown = rows[-1]["rss_mb"] - rows[0]["rss_mb"]
            figures["kb_per_trial"] = 1024 * grown / (rows[-1]["trials"] - rows[0]["trials"])
            print(f"kept for each trial: {figures['kb_per_trial']:.1f} KB")
        figures["resume"] = taken_up(prepared, folder / "random", clock, console)
        print(f"\ntaken up again after {rows[-1]['trials']} trials, seconds (and MB)")
        for what, value in figures["resume"].items():
            print(f"{what:>24}{value:>10.2f}")
        count = min(FEWER, arguments.trials)
        other = "halving" if arguments.policy == "forecast" else "forecast"
        for name, sampler, policy in (("tpe", "tpe", arguments.policy), (other, "random", other)):
            fewer = study_of(sampler, count, policy, data)
            _, figures[name] = search(fewer, folder / name, clock, console)
            print_rows(f"{sampler}, {policy}", figures[name])
        peer = figures["optuna"] = plain_optuna(study, prepared, folder / "peer.log")
        print(
            f"\nplain Optuna with its journal: {1000 * peer['seconds']:.2f} ms a trial, "
            f"{1000 * peer['processor_seconds']:.2f} of it on the processor"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
