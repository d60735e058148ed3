"""The report page: one HTML file with its data, figures and plotly.js inside."""

from __future__ import annotations

import base64
import hashlib
import math
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FunctionLoader, PackageLoader, StrictUndefined
from markupsafe import Markup

from trustsweep.distributed.report.contents import Contents, gather
from trustsweep.distributed.report.palette import PALETTE
from trustsweep.distributed.report.payload import embedded_json
from trustsweep.distributed.report.sections import sections
from trustsweep.distributed.report.thinning import MOST_MODELS, MOST_ROWS, shown_metrics
from trustsweep.distributed.report.wording import (
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
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.optimism import SPLITS


def write_report(run: Run) -> Path:
    """Write `report.html`, `figures/*.png` and the tables of the repeats; returns the page's path.

    Missing results are named on the page. Raises `UserError` for broken files, and for those of
    another version.
    """
    from trustsweep.distributed.report.figures import write_figures  # loads matplotlib

    contents = gather(run)
    for section, data in contents.shown:
        section.write(data)
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
    shared = PackageLoader("trustsweep.distributed.report", "templates")
    environment = Environment(
        loader=ChoiceLoader([shared, FunctionLoader(_template)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, duration=duration, gap=gap_number)
    environment.filters.update(parameter=parameter)
    environment.tests.update(scaled=is_number)
    environment.globals.update(
        better=BETTER, splits=SPLITS, palette=PALETTE, nan=math.nan,
        most_rows=MOST_ROWS, most_models=MOST_MODELS,
    )  # fmt: skip
    return environment


def _template(path: str) -> str | None:
    """Of a section, as "<name>/<file>"; None for no such file."""
    name, _, file = path.partition("/")
    return next((section.text(file) for section in sections() if section.name == name), None)


def _render(contents: Contents) -> str:
    environment, run = _environment(), contents.run
    shared = {
        "run": run,
        "roles": roles(run),
        "metrics": {name: run.metrics[name] for name in shown_metrics(run)},
        "spotlight_colours": dict(zip([e.id for e in run.spotlight], PALETTE, strict=False)),
    }
    scripts = [Markup(script) for script in _scripts()]
    return environment.get_template("report.html.j2").render(
        run=run,
        headline=headline(run),
        unfinished=unfinished(run),
        parts=[
            Markup(environment.get_template(section.template).render(shared, data=data))
            for section, data in contents.shown
        ],
        style=Markup(_asset("report.css")),
        scripts=scripts,
        script_hashes=" ".join(_hash(s) for s in scripts),
        payload=Markup(embedded_json(contents)),
    )


def _scripts() -> tuple[str, ...]:
    """plotly.js, what all figures need, and the sections' own."""
    own = [section.script for section in sections()]
    return _plotly(), _asset("helpers.js"), *(_scoped(script) for script in own if script)


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _scoped(script: str) -> str:
    """A section's names are its own."""
    return f"(() => {{\n{script}}})();"


def _asset(name: str) -> str:
    folder = resources.files("trustsweep.distributed.report") / "templates"
    return (folder / name).read_text(encoding="utf-8")


@cache
def _hash(script: str) -> str:
    """What the page's Content-Security-Policy allows to run: this very script and no other."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
