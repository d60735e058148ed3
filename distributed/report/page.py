"""The report page: one HTML file with its data, figures and plotly.js inside."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import math
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from distributed.report.contents import Contents, gather
from distributed.report.figures import write_figures
from distributed.report.importance import ESTIMATOR, LEAST_TRIALS
from distributed.report.palette import PALETTE
from distributed.report.panel import Tile
from distributed.report.payload import embedded_json
from distributed.report.seeds import findings
from distributed.report.thinning import MOST_ROWS, listed_trials, shown_metrics
from distributed.report.wording import (
    BETTER,
    duration,
    gap_number,
    headline,
    is_number,
    number,
    parameter,
    roles,
    unfinished,
)
from distributed.run.comparison import ATTAINMENT, COMPARISON, write_comparison
from distributed.run.folder import Run
from distributed.run.optimism import SPLITS, counted, counts, mean_optimism

SCRIPTS = ("helpers.js", "progress.js", "seeds.js", "plots.js", "trust.js", "front.js", "table.js")
#: Models beside each other in the table of every metric.
MOST_MODELS = 12


def write_report(run: Run) -> Path:
    """Write `report.html`, `figures/*.png` and the tables of the repeats; returns the page's path.

    What the run has not found yet is named on the page instead. Raises `UserError` for broken
    files, and for those of another version.
    """
    contents = gather(run)
    write_comparison(contents.repeats)
    write_figures(contents)
    page = run.path / "report.html"
    page.write_text(_render(contents), encoding="utf-8")
    return page


def render_page(run: Run) -> str:
    """The text of `report.html`, without drawing the figures; else as `write_report`."""
    return _render(gather(run))


@cache
def _environment() -> Environment:
    """Kept, as it holds the compiled templates."""
    environment = Environment(
        loader=PackageLoader("distributed.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, duration=duration, gap=gap_number)
    environment.filters.update(parameter=parameter, tile=_data_uri)
    environment.tests.update(scaled=is_number)
    return environment


def _render(contents: Contents) -> str:
    scripts = [Markup(get_plotlyjs()), *(Markup(_asset(name)) for name in SCRIPTS)]
    run, found = contents.run, contents.repeats
    metrics = shown_metrics(run)
    template = _environment().get_template("report.html.j2")
    return template.render(
        **{field.name: getattr(contents, field.name) for field in dataclasses.fields(contents)},
        headline=headline(run),
        unfinished=unfinished(run),
        resume_line=run.resume_line,
        better=BETTER,
        splits=SPLITS,
        counted=counted(counts(run)),
        mean_optimism=mean_optimism(contents.choices),
        nan=math.nan,
        findings=findings(found),
        tables=(COMPARISON, ATTAINMENT),
        least_trials=LEAST_TRIALS,
        estimator=ESTIMATOR,
        roles=roles(run),
        listed=listed_trials(run),
        most_rows=MOST_ROWS,
        metrics={name: run.metrics[name] for name in metrics},
        wide_metrics=[name for name in metrics if "@" not in name],
        wide_models=[*([found.baseline] if found.baseline else []), *found.models[:MOST_MODELS]],
        most_models=MOST_MODELS,
        evaluated=run.judged,
        palette=PALETTE,
        spotlight_colours=dict(zip([e.id for e in run.spotlight], PALETTE, strict=False)),
        style=Markup(_asset("report.css")),
        scripts=scripts,
        script_hashes=" ".join(_hash(s) for s in scripts),
        payload=Markup(embedded_json(contents)),
    )


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
