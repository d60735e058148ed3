"""The report page: one HTML file with its data, figures and plotly.js inside."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import math
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from distributed.report.figures import PALETTE, write_figures
from distributed.report.importance import ESTIMATOR, LEAST_TRIALS, Importances, importances
from distributed.report.panel import Panel, Tile, panel
from distributed.report.parallel import Axis, Line, parallel
from distributed.report.wording import BETTER, duration, headline, number, roles
from distributed.run_folder import Evaluation, Run, read_run

SCRIPTS = ("plots.js", "front.js", "table.js")


def write_report(run: Path) -> Path:
    """Write `report.html` and `figures/*.png` into a run folder; returns the page's path.

    Reads the folder's files alone. What the run has not written yet is named on the page
    instead. Raises `UserError` for a missing folder or `trials.csv`, and for broken files.
    """
    data = read_run(run)
    shares = importances(data)
    coordinates = parallel(data)
    panels = [p for p in map(panel, data.spotlight) if p is not None]
    write_figures(data, shares, coordinates, panels)
    page = run / "report.html"
    page.write_text(_render(data, shares, coordinates, panels), encoding="utf-8")
    return page


def _render(
    run: Run,
    shares: Importances | None,
    coordinates: tuple[list[Axis], list[Line]],
    panels: list[Panel],
) -> str:
    environment = Environment(
        loader=PackageLoader("distributed.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, duration=duration, tile=_data_uri)
    scripts = [Markup(get_plotlyjs()), *(Markup(_asset(name)) for name in SCRIPTS)]
    payload = _payload(run, shares, coordinates)
    return environment.get_template("report.html.j2").render(
        run=run,
        headline=headline(run),
        better=BETTER,
        shares=shares,
        least_trials=LEAST_TRIALS,
        estimator=ESTIMATOR,
        coordinates=coordinates,
        panels=panels,
        roles=roles(run),
        spotlight_colours=dict(zip([e.id for e in run.spotlight], PALETTE, strict=False)),
        style=Markup(_asset("report.css")),
        scripts=scripts,
        script_hashes=" ".join(_hash(s) for s in scripts),
        payload=Markup(_embedded_json(payload)),
    )


def _payload(
    run: Run, shares: Importances | None, coordinates: tuple[list[Axis], list[Line]]
) -> dict[str, Any]:
    """What the page's scripts draw from."""
    front = {t.id for t in run.front}
    evaluated = [run.evaluations[t.id] for t in run.front if t.id in run.evaluations]
    return {
        "palette": PALETTE,
        "objectives": [dataclasses.asdict(o) for o in run.objectives],
        "metrics": {name: dataclasses.asdict(info) for name, info in run.metrics.items()},
        "trials": [
            {
                "id": t.id,
                "config": t.config,
                "metrics": t.metrics,
                "front": t.id in front,
                "feasible": run.feasible(t),
            }
            for t in run.completed
        ],
        "history": [dataclasses.asdict(s) for s in run.history],
        "importances": dataclasses.asdict(shares) if shares else None,
        "axes": [dataclasses.asdict(a) for a in coordinates[0]],
        "lines": [dataclasses.asdict(line) for line in coordinates[1]],
        "spotlight": [e.id for e in run.spotlight],
        "roles": roles(run),
        "evaluations": [_drawn(e) for e in evaluated],
    }


def _drawn(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "id": evaluation.id,
        "curves": evaluation.curves,
        "reliability": evaluation.reliability,
    }


def _embedded_json(value: Any) -> str:
    r"""JSON that may stand inside a script element: "<" is written \u003c, NaN becomes null."""
    return json.dumps(_finite(value), allow_nan=False).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def _data_uri(tile: Tile) -> str:
    buffer = io.BytesIO()
    Image.fromarray(tile.pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _asset(name: str) -> str:
    folder = resources.files("distributed.report") / "templates"
    return (folder / name).read_text(encoding="utf-8")


@cache
def _hash(script: str) -> str:
    """What the page's Content-Security-Policy allows to run: this very script and no other."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
