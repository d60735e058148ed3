"""The data of the page's scripts, as JSON inside the page."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.report.contents import Contents
from trustsweep.distributed.report.evaluated import search_curves, trivial_results
from trustsweep.distributed.report.palette import PALETTE
from trustsweep.distributed.report.sections import sections
from trustsweep.distributed.report.thinning import shown_metrics
from trustsweep.distributed.report.wording import roles
from trustsweep.distributed.run.evaluation_card import EvaluationCard
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import Record
from trustsweep.trainables.metrics.catalog import MetricInfo


def embedded_json(contents: Contents) -> str:
    r"""JSON that may stand inside a script element: "<" is written \u003c, NaN becomes null.

    Raises `UserError` where two sections give one key.
    """
    payload = _shared(contents.run)
    for section in sections():
        data = contents.data[section.name]
        own = section.absent if data is None else section.payload(contents.run, data)
        if taken := sorted(own.keys() & payload.keys()):
            raise UserError(
                f"section of the report {section.name!r}: its payload has {taken[0]!r}, which is "
                "another's. Rename it."
            )
        payload |= own
    return json.dumps(_finite(payload), allow_nan=False).replace("<", "\\u003c")


def _shared(run: Run) -> dict[str, Any]:
    """Data that the scripts of more than one section use."""
    metrics = shown_metrics(run)
    ignoring = trivial_results(run)
    return {
        "palette": PALETTE,
        "objectives": [dataclasses.asdict(o) for o in run.objectives],
        "metrics": {name: _described(run.metrics[name]) for name in metrics},
        "trials": _columns(run, metrics),
        "spotlight": [e.id for e in run.spotlight],
        "roles": roles(run),
        "trivial": ignoring.reached if ignoring else {},
        "evaluations": [_drawn(card) for card in run.front_cards],
    }


def _columns(run: Run, metrics: list[str]) -> dict[str, Any]:
    """The completed and the stopped trials of the search, column by column: 10,000 must fit."""
    trials = [*run.completed, *run.stopped]
    front = {t.id for t in run.front}
    return {
        "id": [t.id for t in trials],
        "state": [t.state for t in trials],
        "epochs": [t.epochs for t in trials],
        "front": [t.id in front for t in trials],
        "feasible": [run.feasible(t) for t in trials],
        "remark": [run.remarks.get(t.id, "") for t in trials],
        "masked": [run.masked.get(t.id, "") for t in trials],
        "config": {key: [t.config.get(key) for t in trials] for key in _keys(trials)},
        "metrics": {
            name: [t.metrics.get(name) for t in trials]
            for name in metrics
            if any(name in t.metrics for t in trials)
        },
    }


def _keys(trials: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(key for t in trials for key in t.config))


def _described(info: MetricInfo) -> dict[str, str | None]:
    return {"direction": info.direction, "unit": info.unit, "meaning": info.meaning}


def _drawn(card: EvaluationCard) -> dict[str, Any]:
    return {
        "id": card.id,
        "curves": card.curves,
        "searched": search_curves(card),
        "reliability": {name: bins.model_dump() for name, bins in card.reliability.items()},
    }


def _finite(value: Any) -> Any:
    """Six significant digits are more than a screen shows, and NaN is no JSON."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
