"""Tables and a summary of a run for people and other programs; nothing here is read back.

`trials.csv`, `front.csv`, `hypervolume.csv` and `summary.json`, all from the folder's `Run`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.distributed.run.folder import Run, identifier, total_cost
from trustsweep.distributed.run.ledger import Record, State
from trustsweep.distributed.version import VERSION
from trustsweep.search_spaces.study import SEED
from trustsweep.trainables.metrics.catalog import COSTS, MetricInfo

TRIALS, FRONT, HYPERVOLUME, SUMMARY = "trials.csv", "front.csv", "hypervolume.csv", "summary.json"


def write_exports(run: Run) -> None:
    """Write all four into the run's folder, each replaced as a whole. Raises OSError."""
    names = [o.name for o in run.objectives]
    write_trials(run.path / TRIALS, run.ledger.records.values())
    write_csv(
        run.path / FRONT,
        ["id", *(f"metric.{name}" for name in names)],
        [[trial.id, *(trial.metrics[name] for name in names)] for trial in run.front],
    )
    write_csv(
        run.path / HYPERVOLUME,
        ["trial", "id", "seconds", "hypervolume"],
        [[s.trial, s.id, round(s.seconds, 3), s.hypervolume] for s in run.history],
    )
    write_atomically(run.path / SUMMARY, json.dumps(_summary(run), indent=2))


def write_trials(path: Path, records: Iterable[Record]) -> None:
    """`trials.csv`: a row per trial, `config.*` and `metric.*` columns, empty where absent."""
    records = list(records)
    configs = _names(r.config for r in records)
    metrics = _names(r.metrics for r in records)
    header = ["id", "number", "stage", "of", "state", "reason", "dominated_by"]
    header += ["epochs", "seconds", "ended", "code"]
    header += [f"config.{n}" for n in configs] + [f"metric.{n}" for n in metrics]
    rows = (
        [r.id, r.number, r.stage, r.of, r.state.value, r.reason, " ".join(r.dominated_by)]
        + [r.epochs, round(r.seconds, 3), round(r.ended, 3), r.code]
        + [r.config.get(n, "") for n in configs]
        + [r.metrics.get(n, "") for n in metrics]
        for r in records
    )
    write_csv(path, header, rows)


def write_csv(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    """Replace a CSV file as a whole."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def _summary(run: Run) -> dict[str, Any]:
    study, manifest = run.study, run.manifest
    counts = Counter(trial.state for trial in run.trials)
    costs = {name: total_cost(name, run.trials) for name in COSTS}
    return {
        "name": study.name,
        "trustsweep_version": VERSION,
        "code": run.code,
        "objectives": [{"name": o.name, "direction": o.direction} for o in run.objectives],
        "counts": {state.value: counts[state] for state in State},
        "sessions": len(run.ledger.sessions),
        "cost": {name: 0.0 if math.isnan(cost) else cost for name, cost in costs.items()},
        "seeds": study.repeat_seeds(),
        "references": _reference_ids(run),
        "data": {
            "name": manifest.name,
            "fingerprint": manifest.fingerprint,
            "image_shape": manifest.image_shape,
            "split_counts": manifest.split_counts,
            "licence": manifest.licence,
            "citation": manifest.citation,
        },
        "metric_info": {name: _described(info) for name, info in run.metrics.items()},
        "reference": run.reference,
        "hypervolume": run.hypervolume,
        "seconds": run.seconds,
        "interrupted": run.interrupted,
    }


def _reference_ids(run: Run) -> dict[str, list[str]]:
    """The trials of each of the study's references under each seed, whatever else they are."""
    identify = identifier(run.study, run.manifest)
    return {
        name: [identify({**config, SEED: seed}) for seed in run.study.repeat_seeds()]
        for name, config in run.study.references().items()
    }


def _described(info: MetricInfo) -> dict[str, Any]:
    return {
        "direction": info.direction,
        "unit": info.unit,
        "meaning": info.meaning,
        # JSON has no infinity: an open end is null.
        "low": info.low if math.isfinite(info.low) else None,
        "high": info.high if math.isfinite(info.high) else None,
    }


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every key, in the order of first appearance."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))
