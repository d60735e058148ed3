"""The command line. Heavy imports happen inside the commands, so that --help is instant."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from trustsweep.data_pipelines.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from trustsweep.distributed.run.folder import Run

app = typer.Typer(
    name="trustsweep",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="From a folder of medical images to the Pareto front of robustness against "
    "calibration.\n\nThree steps: **prepare** a published folder, **sweep** a study over it, look "
    "at the **report**. `trustsweep list` names everything that a study can use.",
)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any key; may be given repeatedly."),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Made by `trustsweep prepare`: a folder, or a URL (s3://...)."),
]


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved study and what it would use.")
]


def _use_plugins(paths: list[Path] | None) -> list[Path] | None:
    if paths:
        from trustsweep.data_pipelines import plugins

        plugins.use(paths)
    return paths


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        callback=_use_plugins,
        help="Models, layouts, corruptions, attacks, regimes or metrics of your own; may be given "
        "repeatedly. See docs/plugins.md.",
    ),
]


@app.command()
def prepare(
    folder: Annotated[
        Path | None, typer.Argument(help="The folder as its publisher ships it.")
    ] = None,
    layout: Annotated[str, typer.Option(help="How the folder is laid out; see `list layouts`.")] = (
        "phantoms"
    ),
    out: Annotated[
        str, typer.Option(help="Where the shards go: a folder, or a URL (s3://...).")
    ] = ("data/phantoms"),
    size: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Images become SIZE pixels a side. Left out: their own size where all are known "
            "to share one of up to 128, else 64.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split (and of generated images).")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another data set at --out.")
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out what cannot be used; skipped.csv lists it."),
    ] = False,
    patients: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Who is in which image (columns: file name, patient), for layouts that guess it.",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of the layout, as count=480, or one of ratios=[0.7,0.15,0.15], "
            "ood_site=SITE (or each), folds=5, dtype=float16.",
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Turn a published folder into shards that a sweep can read.

    Every file is checked first: an image without its mask, a mask of another size or a truncated
    file is named, and nothing is written. Killed half-way, it goes on when it is run again.
    Example:

    `trustsweep prepare "QaTa-COV19-v2" --layout qata-cov19 --size 128 --out data/qata`

    Without a folder, generated chest X-rays: `trustsweep prepare --out data/phantoms`
    """
    from trustsweep.data_pipelines.building.prepare import prepare as run_prepare
    from trustsweep.distributed.cli.preparing import cases_read, summary
    from trustsweep.search_spaces.study import assignment

    chosen = dict(assignment(item, example="count=480") for item in options or [])
    for key in chosen.keys() & {"size", "seed", "overwrite", "skip_bad", "patients", "progress"}:
        raise UserError(f"--set {key}: write --{key.replace('_', '-')} instead.")
    console = _console()
    with cases_read(console) as progress:
        report = run_prepare(
            folder,
            layout,
            out,
            size=size,
            seed=seed,
            overwrite=overwrite,
            skip_bad=skip_bad,
            patients=patients,
            progress=progress,
            **chosen,
        )
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)
    console.print(summary(out, report), highlight=False, soft_wrap=True)


@app.command()
def inspect(
    data: Annotated[str, typer.Argument(help="A folder made by `trustsweep prepare`, or its URL.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures; beside the data, as NAME-inspect, if left out."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="The corruptions to show; see `list suites`.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every number there, too.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Look at the data: counts, ranges and warnings, and pictures of samples and corruptions.

    Example: `trustsweep inspect data/qata`
    """
    from trustsweep.data_pipelines.inspection.command import run

    run(data, out, suite, json_file, _console())


@app.command()
def sweep(
    study: Annotated[
        str | None, typer.Argument(help="A study file, or the name of a shipped study.")
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder; must be new.  [default: runs/sweep]")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Resume this run, whatever ended it."),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="With --resume: accept a change of this key of the study (or of `code`).",
        ),
    ] = None,
    warm_start: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Let the sampler learn from an earlier run first."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Short for --set search.trials=N.")
    ] = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    plugin: Plugins = None,
) -> None:
    """Search a study's space and leave its front, models and report in a run folder.

    Runs on this machine, or on the cluster that RAY_ADDRESS names, as in a submitted job.

    Example: `trustsweep sweep evidential --data data/qata --trials 24 --out runs/qata`

    Ctrl-C finishes the epoch and writes the report. Interrupted runs resume, also after a crash:
    `trustsweep sweep --resume runs/qata`. The number of trials may grow; every other change has to
    be explicit: `--set`, or `--accept KEY` for an edited study file, `--accept code` for other
    code.
    """
    from trustsweep.search_spaces.study import load

    items = list(overrides or [])
    changed = [item.partition("=")[0] for item in items]
    if trials is not None:
        items.append(f"search.trials={trials}")
        changed.append("search.trials")
    if data is not None:
        items.append(f"data={data}")
    if warm_start is not None:
        items.append(f"search.warm_start={json.dumps(str(warm_start.resolve()))}")
    if resume is not None:
        if out is not None or warm_start is not None:
            raise UserError(
                "--resume RUN: continues in its own folder. Leave --out and --warm-start out."
            )
        _resume(resume, study, items, [*changed, *(accept or [])], dry_run)
    elif study is None:
        raise UserError("Name a study, or a run to resume: --resume RUN.")
    else:
        _sweep(load(study, items), out or Path("runs/sweep"), dry_run)


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="What to train; see `list methods`.")],
    data: Data = None,
    out: Annotated[Path, typer.Option(help="The run folder; must be new.")] = Path("runs/train"),
    overrides: Overrides = None,
    dry_run: DryRun = False,
    plugin: Plugins = None,
) -> None:
    """Train one model with given parameters: a sweep of a single trial, with the same report.

    Parameters not named have the defaults of the method's space; objectives not named follow from
    its task and from what the evaluation measures. Example:

    `trustsweep train evidential-unet --data data/qata --set epochs=30 --set regime=uncertain`
    """
    from trustsweep.distributed.sweep.checks import with_objectives
    from trustsweep.search_spaces.space import Space
    from trustsweep.search_spaces.study import apply_overrides

    space = Space([method], {})
    names = space.of(method)
    items = [
        f"space.{item}" if item.partition("=")[0] in names else item for item in overrides or []
    ]
    if data is not None:
        items.append(f"data={data}")
    raw = {
        "name": f"train-{method}",
        "methods": [method],
        "search": {"trials": 1, "sampler": "random"},
        "space": {name: parameter.start() for name, parameter in names.items()},
    }
    _sweep(with_objectives(apply_overrides(raw, items), "train"), out, dry_run)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    plugin: Plugins = None,
) -> None:
    """Write report.html and the figures of a run again, from its folder.

    Also works while a run is going or after it was killed: it shows the trials that have ended.
    """
    from trustsweep.distributed.report.page import write_report
    from trustsweep.distributed.run.exports import write_exports
    from trustsweep.distributed.run.folder import Run

    opened = Run.open(run)
    write_exports(opened)
    _console().print(f"Report: {write_report(opened)}", highlight=False, soft_wrap=True)


@app.command(name="list")
def list_registered(
    kind: Annotated[
        str | None,
        typer.Argument(help="methods, layouts, metrics, ..., or one of them; all if left out."),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """List everything that a study, `prepare` or `train` can use.

    With a name, show its description: `trustsweep list chestxray14`
    """
    from trustsweep.data_pipelines.registry import nearest
    from trustsweep.distributed.cli.catalogue import catalogue, describe

    kinds = catalogue()
    console = _console()
    if kind is not None and kind not in kinds:
        if (text := describe(kind)) is not None:
            console.print(text, highlight=False, markup=False)
            return
        known = [*kinds, *(name for entries in kinds.values() for name in entries)]
        raise UserError(
            f"list: nothing is called {kind!r}{nearest(kind, known)} Kinds: {', '.join(kinds)}."
        )
    for name, entries in kinds.items():
        if kind in (None, name):
            console.print(f"[bold]{name}[/bold]")
            width = max(len(entry) for entry in entries)
            lines = [
                f"  {entry:<{width}}  {meaning}".rstrip() for entry, meaning in entries.items()
            ]
            console.print("\n".join(lines), highlight=False, markup=False)


def main() -> None:
    """Run the command line.

    User errors are one line on stderr and exit code 2; an interrupted sweep prints how to resume
    it, and exits with 130 after Ctrl-C, else with 1.
    """
    from trustsweep.distributed.run.halt import Halted

    # Imports leave no garbage, but looking for it every 700 objects takes a tenth of a dry run.
    gc.set_threshold(50_000)
    try:
        app()
    except UserError as error:
        print(f"trustsweep: {error}", file=sys.stderr)
        sys.exit(2)
    except Halted as halted:
        print(f"trustsweep: {halted}. Resume with: {halted.resume}", file=sys.stderr)
        sys.exit(halted.code)


def _sweep(study: Any, out: Path, dry_run: bool) -> None:
    if not dry_run:
        from trustsweep.distributed.sweep.job import sweep

        _ended(sweep(study, out, _console()))
        return
    from trustsweep.distributed.sweep.plan import prepare
    from trustsweep.distributed.sweep.resources import nodes

    prepared = prepare(study, nodes())
    # As it is: what a terminal would wrap, a file that it is sent to should not.
    print(study.to_yaml())
    space = yaml.safe_dump(study.search_space().to_dict(), sort_keys=False, allow_unicode=True)
    print(f"# The space, resolved\n{space}")
    print(f"# Resources: {prepared.resources}")
    for note in prepared.notes:
        print(f"# {note}")


def _resume(
    run: Path, study: str | None, items: list[str], accepted: list[str], dry_run: bool
) -> None:
    from trustsweep.distributed.run.folder import STUDY, Run
    from trustsweep.distributed.sweep.job import resume
    from trustsweep.search_spaces.study import load

    if dry_run:
        raise UserError("--dry-run: only for a new run. Leave it out with --resume.")
    Run.open(run)
    _ended(resume(run, load(study or run / STUDY, items), accepted, _console()))


def _ended(run: Run) -> None:
    """Exit with 1 if a sweep ended without a single model."""
    from trustsweep.distributed.run.ledger import State

    if not run.ledger.of(State.COMPLETED):
        raise typer.Exit(1)


def _console() -> Console:
    from rich.console import Console

    # A job's log is not a terminal and would be wrapped at 80 columns.
    console = Console()
    return console if console.is_terminal else Console(width=160)
