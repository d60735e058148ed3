"""Every layout with several modalities and one label feeds every fusion model."""

import itertools
import math

import pytest

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.schema import Manifest, Split, TaskName
from trustsweep.data_pipelines.streams.indexed import Samples
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.fusion.base import FusionMethod
from trustsweep.trainables.registry import METHODS

MODELS = [name for name, cls in METHODS.items() if issubclass(cls, FusionMethod)]
#: The kinds of modalities that each has.
LAYOUTS = {
    "hannover-covid": {"image", "tabular"},
    "lgg": {"image", "tabular"},
    "mimic": {"image", "series", "tabular"},
    "physionet2012": {"series", "tabular"},
    "tcga": {"image", "tabular"},
    "uci-heart": {"tabular"},
}


#: What gives one label to a layout that else has several.
OPTIONS = {"mimic": {"target": "mortality"}}


#: Every model and every layout in some pair; the other pairs are slow.
SOME = set(zip(MODELS, itertools.cycle(LAYOUTS), strict=False))
PAIRS = [
    pytest.param(layout, name, marks=() if (name, layout) in SOME else pytest.mark.slow)
    for layout in LAYOUTS
    for name in MODELS
]


@pytest.fixture(scope="module")
def data(request, miniature, tmp_path_factory):
    """A prepared miniature's manifest and its train split."""
    out = tmp_path_factory.mktemp("fused") / request.param
    options = OPTIONS.get(request.param, {})
    prepare(miniature(request.param), request.param, out, size=16, **options)
    manifest = Manifest.load(out)
    assert TaskName.CLASSIFICATION in manifest.tasks
    assert {str(m.kind) for m in manifest.modalities} == LAYOUTS[request.param]
    return manifest, Samples.read(out, Split.TRAIN)


def test_every_model_and_every_layout_is_in_some_pair_of_the_fast_ones() -> None:
    assert {name for name, _ in SOME} == set(MODELS)
    assert {layout for _, layout in SOME} == set(LAYOUTS)


@pytest.mark.parametrize(("data", "name"), PAIRS, indirect=["data"])
def test_a_model_trains_and_is_judged(data, name: str) -> None:
    manifest, samples = data
    config = Space([name], {"regime": "none"}).defaults(name) | {"width": 2, "dim": 8}
    plan = EvaluationPlan(
        corruptions=(("mixed-quality", 5), ("modality-drop", 5)), suite="clinical"
    )
    training = Training(config, manifest, plan)
    assert math.isfinite(training.epoch(samples)["train.loss"])
    found = training.evaluate(samples, batch_size=8).compute()
    assert 0 <= found["clean.accuracy"] <= 1
    assert math.isfinite(found["corrupted@modality-drop-5.nll"])
