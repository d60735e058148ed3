"""What the page's scripts draw from, as JSON inside the page."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any

from distributed.optimism import SPLITS
from distributed.report.attacks import search_curves
from distributed.report.contents import Contents
from distributed.report.palette import PALETTE
from distributed.report.seeds import middle
from distributed.report.thinning import shown_metrics
from distributed.report.wording import roles
from distributed.run_folder import Evaluation, Run, Trial


def embedded_json(contents: Contents) -> str:
    r"""JSON that may stand inside a script element: "<" is written \u003c, NaN becomes null."""
    return json.dumps(_finite(_payload(contents)), allow_nan=False).replace("<", "\\u003c")


def _payload(contents: Contents) -> dict[str, Any]:
    run = contents.run
    evaluated = [run.evaluations[t.id] for t in run.front if t.id in run.evaluations]
    metrics = shown_metrics(run)
    surfaces = len(contents.repeats.surfaces)
    return {
        "palette": PALETTE,
        "objectives": [dataclasses.asdict(o) for o in run.objectives],
        "metrics": {name: dataclasses.asdict(run.metrics[name]) for name in metrics},
        "trials": _columns(run, metrics),
        "growth": dataclasses.asdict(contents.growth),
        "stairs": [dataclasses.asdict(s) for s in contents.stairs],
        "seedPoints": [dataclasses.asdict(p) for p in contents.points],
        "seedSplits": {
            o.name: SPLITS.get(contents.repeats.split(o.name), "") for o in run.objectives
        },
        "surfaces": surfaces,
        "middle": middle(surfaces),
        "importances": dataclasses.asdict(contents.shares) if contents.shares else None,
        "axes": [dataclasses.asdict(a) for a in contents.axes],
        "lines": [dataclasses.asdict(line) for line in contents.lines],
        "spotlight": [e.id for e in run.spotlight],
        "roles": roles(run),
        "trivial": contents.beside.reached if contents.beside else {},
        "evaluations": [_drawn(e) for e in evaluated],
        "tests": {e.id: _test(e, metrics) for e in evaluated if e.split == "test"},
        "risks": [
            {"id": a.id, "curves": a.curves, "error": "dice" if a.segmented else "class"}
            for a in contents.abstentions
        ],
        "worsenings": [dataclasses.asdict(w) for w in contents.worsenings],
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


def _keys(trials: Iterable[Trial]) -> list[str]:
    return list(dict.fromkeys(key for t in trials for key in t.config))


def _drawn(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "id": evaluation.id,
        "curves": evaluation.curves,
        "searched": search_curves(evaluation),
        "reliability": evaluation.reliability,
    }


def _test(evaluation: Evaluation, metrics: list[str]) -> dict[str, list[float]]:
    """Value and interval of the metrics on the test split; a cost is no figure of it.

    Those under attack are under the strongest that judged the model.
    """
    estimates = evaluation.estimates.get("test", {})
    told = {**estimates.get("figures", {}), **estimates.get("final", {})}
    return {
        name: [evaluation.metrics[name], *(told.get(name, {}).get(end) for end in ("low", "high"))]
        for name in metrics
        if name in evaluation.metrics
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
