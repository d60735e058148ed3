"""Run folders by hand: rows of trials in, the files of a sweep out."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trustsweep.data_pipelines.schema import Manifest, TaskName
from trustsweep.distributed.run.evaluation_card import EvaluationCard
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import LEDGER, Ledger, Record, State
from trustsweep.search_spaces.study import Study

#: A trial, flat: fields of `Record` but for `config.<key>` and `metric.<name>`. None is absent.
Row = dict[str, Any]
VERSION, CODE = "0.1.0", "abc+1"
MANIFEST = Manifest(
    name="discs",
    tasks=(TaskName.SEGMENTATION, TaskName.CLASSIFICATION),
    image_shape=(1, 48, 48),
    image_scale=255.0,
    classes=("background", "disc"),
    mean=(0.5,),
    std=(0.2,),
    split_counts={"train": 448, "val": 96, "test": 96},
    columns={},
    fingerprint="3f2a" * 8,
    licence="CC BY 4.0",
    citation="A. Author & B. Author (2024). Discs.",
)


def record_of(row: Row) -> Record:
    known = {key: value for key, value in row.items() if value is not None}

    def part(prefix: str) -> dict[str, Any]:
        return {k.removeprefix(prefix): v for k, v in known.items() if k.startswith(prefix)}

    plain = {key: value for key, value in known.items() if "." not in key}
    plain["state"] = State(plain.get("state", "completed"))
    return Record(**plain, config=part("config."), metrics=part("metric."))


def study_of(objectives: Iterable[str], **changes: Any) -> Study:
    raw = {"name": "s", "methods": ["unet"], "objectives": list(objectives), **changes}
    return Study.model_validate(raw)


def write_run(
    folder: Path,
    rows: Iterable[Row],
    study: Study,
    manifest: Manifest = MANIFEST,
    *,
    closed: bool = True,
    interrupted: str | None = None,
) -> Path:
    """A run folder of those trials; with `closed`, its session is over."""
    folder.mkdir(exist_ok=True)
    run = Run(folder, Ledger(folder))
    run.write_study(study, manifest)
    run.ledger.session(version=VERSION, code=CODE)
    for record in map(record_of, rows):
        run.ledger.end(record)
    if closed:
        run.ledger.close(run.seconds, interrupted)
    return folder


def rewrite(folder: Path, rows: Iterable[Row], **more: Any) -> Path:
    """The same run with other trials."""
    run = Run.open(folder)
    study, manifest = run.study, run.manifest
    (folder / LEDGER).unlink()
    return write_run(folder, rows, study, manifest, **more)


def rows_of(folder: Path) -> list[Row]:
    """The trials of a run, as `write_run` takes them."""
    return [
        {
            "id": r.id, "number": r.number, "stage": r.stage, "of": r.of, "state": r.state.value,
            "reason": r.reason, "dominated_by": r.dominated_by, "epochs": r.epochs,
            "seconds": r.seconds, "ended": r.ended,
            **{f"config.{k}": v for k, v in r.config.items()},
            **{f"metric.{k}": v for k, v in r.metrics.items()},
        }
        for r in Run.open(folder).ledger.records.values()
    ]  # fmt: skip


def change_study(folder: Path, **changes: Any) -> None:
    run = Run.open(folder)
    raw = run.study.model_dump(mode="json") | changes
    run.write_study(Study.model_validate(raw), run.manifest)


def write_card(folder: Path, content: Mapping[str, Any]) -> Path:
    """A card into a run folder; "split" is test unless it is there."""
    (folder / "evaluation").mkdir(exist_ok=True)
    path = folder / "evaluation" / f"{content['id']}.json"
    EvaluationCard.write(path, {"split": "test", "metrics": {}, **content})
    return path


def card_content(path: Path) -> dict[str, Any]:
    """What `write_card` was given, and its defaults."""
    content = dict(json.loads(path.read_text()))
    del content["version"]
    return content
