"""All registered implementations with a line on each, as `trustsweep list` prints them.

Implementations are not imported, so that the list is instant.
"""

from __future__ import annotations

from trustsweep.data_pipelines.corruptions import CORRUPTIONS
from trustsweep.data_pipelines.corruptions.suites import SUITES
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.registry import Registry
from trustsweep.distributed.report.sections import SECTIONS
from trustsweep.search_spaces.policies import POLICIES
from trustsweep.search_spaces.study import FITTING, read, shipped_studies
from trustsweep.trainables.metrics.catalog import AREAS, COSTS, METRICS, MetricInfo, metric_info
from trustsweep.trainables.metrics.names import SKILL
from trustsweep.trainables.registry import (
    ATTACKS,
    CONDITIONS,
    MAPS,
    METHODS,
    NETWORKS,
    REGIMES,
    RISKS,
)

_REGISTRIES: dict[str, Registry] = {
    "methods": METHODS,
    "networks": NETWORKS,
    "layouts": LAYOUTS,
    "corruptions": CORRUPTIONS,
    "attacks": ATTACKS,
    "regimes": REGIMES,
    "risks": RISKS,
    "conditions": CONDITIONS,
    "schedulers": POLICIES,
    "sections": SECTIONS,
}


def catalogue() -> dict[str, dict[str, str]]:
    """Kind to name to a one-line meaning."""
    entries = {
        kind: {name: registry.meaning(name) for name in registry}
        for kind, registry in _REGISTRIES.items()
    }
    entries["suites"] = {name: ", ".join(listed) for name, listed in SUITES.items()}
    entries["uncertainties"] = dict(MAPS)
    entries["metrics"] = {name: _meaning(info) for name, info in METRICS.items()}
    entries["whole metrics"] = {
        name: _meaning(info) for table in (AREAS, COSTS) for name, info in table.items()
    }
    entries["skills"] = {
        name: f"{metric_info(name).meaning}; so of every metric that has one"
        for name in (f"{SKILL}.clean.dice_lesion", f"{SKILL}.balanced_accuracy_area")
    }
    entries["studies"] = {name: _methods(read(name)["methods"]) for name in shipped_studies()}
    return entries


def describe(name: str) -> str | None:
    """The description of all registered implementations of that name, each after its kind where
    there are several (a method may bear the name of its network); None for an unknown name."""
    texts = {
        registry.kind: _described(registry, name)
        for registry in _REGISTRIES.values()
        if name in registry
    }
    if len(texts) < 2:
        return next(iter(texts.values()), None)
    return "\n\n".join(f"As a {kind}: {text}" for kind, text in texts.items())


def _described(registry: Registry, name: str) -> str:
    text = registry.docstring(name)
    if registry is not LAYOUTS:
        return text
    implementation = registry[name]
    options = ", ".join(f"{k}={v}" for k, v in implementation.options().items())
    # Some learn them from the folder.
    tasks = ", ".join(getattr(implementation, "tasks", ())) or "as the folder has them"
    listed = "Patients: --patients FILE.csv\n" if implementation.takes_patients else ""
    return (
        f"{text}\n\nTasks: {tasks}\nOptions (--set): {options or 'none'}\n{listed}"
        f"Licence: {implementation.licence}\nCite: {implementation.citation}"
    )


def _methods(listed: list[str] | str) -> str:
    return "every method that fits the data" if listed == FITTING else ", ".join(listed)


def _meaning(info: MetricInfo) -> str:
    better = {"max": "higher is better; ", "min": "lower is better; ", None: ""}[info.direction]
    skill = f"; has a {SKILL}" if info.skilled else ""
    return f"{info.meaning} ({better}{', '.join(info.tasks)}{skill})"
