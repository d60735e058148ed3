"""From a folder of medical images to the Pareto front of robustness against calibration.

The code lives in the packages below (`trustsweep.trainables`, ...). In a checkout, and so in the
working directory of a job, their folders stand beside this one; in a wheel, within it. The names
that a notebook or a plug-in needs are here as well, each loaded when it is first asked for:

>>> import trustsweep
>>> sorted(trustsweep.METHODS)[:2]
['classifier', 'draf']
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trustsweep.data_pipelines.corruptions import CORRUPTIONS
    from trustsweep.data_pipelines.corruptions.base import Corruption, ImageCorruption
    from trustsweep.data_pipelines.errors import UserError
    from trustsweep.data_pipelines.layouts import LAYOUTS
    from trustsweep.data_pipelines.layouts.base import Layout, Sample
    from trustsweep.data_pipelines.problems import BadFile
    from trustsweep.data_pipelines.schema import Batch, Manifest, Split, TaskName
    from trustsweep.distributed.report.section import Section
    from trustsweep.distributed.report.sections import SECTIONS
    from trustsweep.distributed.run.folder import Run
    from trustsweep.distributed.search.stopping.policy import Policy, Verdict
    from trustsweep.distributed.workers.model import Model
    from trustsweep.search_spaces.policies import POLICIES
    from trustsweep.search_spaces.study import Study
    from trustsweep.trainables.attacks.engine import Attack
    from trustsweep.trainables.conditions import Condition
    from trustsweep.trainables.contract import Loss, Method, Prediction, Progress
    from trustsweep.trainables.fusion.base import FusionMethod, FusionNetwork
    from trustsweep.trainables.metrics.base import MetricState, SumState
    from trustsweep.trainables.metrics.catalog import METRICS, MetricInfo
    from trustsweep.trainables.networks import NetworkFamily, Standardise
    from trustsweep.trainables.regimes import Regime
    from trustsweep.trainables.registry import (
        ATTACKS,
        CONDITIONS,
        MAPS,
        METHODS,
        NETWORKS,
        REGIMES,
        RISKS,
    )
    from trustsweep.trainables.settings import number, whole, word
    from trustsweep.trainables.tasks import Task
    from trustsweep.trainables.uncertainty import (
        bernoulli_maps,
        beta_maps,
        categorical_maps,
        dirichlet_maps,
    )

_HERE = Path(__file__).resolve().parent
if not (_HERE / "trainables").is_dir():
    __path__.append(str(_HERE.parent))

_NAMES = {
    "data_pipelines.corruptions": ("CORRUPTIONS",),
    "data_pipelines.corruptions.suites": ("SUITES",),
    "data_pipelines.corruptions.base": ("Corruption", "ImageCorruption"),
    "data_pipelines.errors": ("UserError",),
    "data_pipelines.layouts": ("LAYOUTS",),
    "data_pipelines.layouts.base": ("Layout", "Sample"),
    "data_pipelines.problems": ("BadFile",),
    "data_pipelines.schema": ("Batch", "Manifest", "Split", "TaskName"),
    "distributed.report.section": ("Section",),
    "distributed.report.sections": ("SECTIONS",),
    "distributed.run.folder": ("Run",),
    "distributed.workers.model": ("Model",),
    "distributed.search.stopping.policy": ("Policy", "Verdict"),
    "search_spaces.policies": ("POLICIES",),
    "search_spaces.study": ("Study",),
    "trainables.attacks.engine": ("Attack",),
    "trainables.conditions": ("Condition",),
    "trainables.contract": ("Loss", "Method", "Prediction", "Progress"),
    "trainables.fusion.base": ("FusionMethod", "FusionNetwork"),
    "trainables.metrics.base": ("MetricState", "SumState"),
    "trainables.metrics.catalog": ("METRICS", "MetricInfo"),
    "trainables.networks": ("NetworkFamily", "Standardise"),
    "trainables.regimes": ("Regime",),
    "trainables.tasks": ("Task",),
    "trainables.registry": (
        "ATTACKS",
        "CONDITIONS",
        "MAPS",
        "METHODS",
        "NETWORKS",
        "REGIMES",
        "RISKS",
    ),
    "trainables.settings": ("number", "whole", "word"),
    "trainables.uncertainty": (
        "bernoulli_maps",
        "beta_maps",
        "categorical_maps",
        "dirichlet_maps",
    ),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = [
    "ATTACKS",
    "CONDITIONS",
    "CORRUPTIONS",
    "LAYOUTS",
    "MAPS",
    "METHODS",
    "METRICS",
    "NETWORKS",
    "POLICIES",
    "REGIMES",
    "RISKS",
    "SECTIONS",
    "SUITES",
    "Attack",
    "BadFile",
    "Batch",
    "Condition",
    "Corruption",
    "FusionMethod",
    "FusionNetwork",
    "ImageCorruption",
    "Layout",
    "Loss",
    "Manifest",
    "Method",
    "MetricInfo",
    "MetricState",
    "Model",
    "NetworkFamily",
    "Policy",
    "Prediction",
    "Progress",
    "Regime",
    "Run",
    "Sample",
    "Section",
    "Split",
    "Standardise",
    "Study",
    "SumState",
    "Task",
    "TaskName",
    "UserError",
    "Verdict",
    "bernoulli_maps",
    "beta_maps",
    "categorical_maps",
    "dirichlet_maps",
    "number",
    "whole",
    "word",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
