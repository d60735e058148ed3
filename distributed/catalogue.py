"""Everything that is registered, with a line on each: what `trustsweep list` prints."""

from __future__ import annotations

import inspect
from typing import Any

from data_pipelines.corruptions import CORRUPTIONS
from data_pipelines.corruptions.suites import SUITES
from data_pipelines.layouts import LAYOUTS
from data_pipelines.registry import Registry
from search_spaces.study import load, shipped_studies
from trainables.attacks import ATTACKS
from trainables.metrics.catalog import METRICS
from trainables.regimes import REGIMES
from trainables.registry import TRAINABLES
from trainables.uncertainty import MAPS


def catalogue() -> dict[str, dict[str, str]]:
    """Kind to name to a one-line meaning."""
    registries: dict[str, Registry] = {
        "trainables": TRAINABLES,
        "layouts": LAYOUTS,
        "corruptions": CORRUPTIONS,
        "attacks": ATTACKS,
        "regimes": REGIMES,
    }
    found = {
        kind: {name: _first_line(registry[name]) for name in registry}
        for kind, registry in registries.items()
    }
    found["suites"] = {name: ", ".join(listed) for name, listed in SUITES.items()}
    found["uncertainties"] = dict(MAPS)
    found["metrics"] = {
        name: f"{info.meaning} ({'higher' if info.direction == 'max' else 'lower'} is better)"
        for name, info in METRICS.items()
    }
    found["studies"] = {name: ", ".join(load(name).trainables) for name in shipped_studies()}
    return found


def _first_line(implementation: Any) -> str:
    return (inspect.getdoc(implementation) or "").partition("\n")[0]
