"""A plug-in with one of everything that can be added; see test_plugins.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from trustsweep import (
    ATTACKS,
    CONDITIONS,
    CORRUPTIONS,
    LAYOUTS,
    MAPS,
    METHODS,
    METRICS,
    NETWORKS,
    POLICIES,
    REGIMES,
    SECTIONS,
    SUITES,
    Condition,
    ImageCorruption,
    Layout,
    Loss,
    Method,
    MetricInfo,
    NetworkFamily,
    Policy,
    Prediction,
    Sample,
    Section,
    Standardise,
    SumState,
    TaskName,
    Verdict,
    categorical_maps,
)
from trustsweep.trainables.attacks.pgd import PGD
from trustsweep.trainables.metrics.base import classes, ratio
from trustsweep.trainables.regimes import RandomFraction


class Brightest(Method):
    """Logistic regression on the brightest pixel and the mean."""

    tasks = (TaskName.CLASSIFICATION,)
    uncertainties = ("entropy", "least-confidence", "doubt-squared")
    space: ClassVar = {"gain": {"low": 1.0, "high": 4.0, "default": 2.0, "within": [0.1, 10]}}

    def network(self) -> nn.Module:
        m = self.manifest
        return nn.Sequential(
            Standardise(m.mean, m.std, m.spatial_dims), _Summary(), nn.Linear(2, len(m.classes))
        )

    def loss(self, network, batch, progress):
        each = F.cross_entropy(self._scores(network, batch), batch.label, reduction="none")
        return Loss(each.mean(), each)

    def predict(self, network, batch):
        scores = self._scores(network, batch)
        maps = categorical_maps(scores.softmax(dim=1))
        return Prediction(scores, maps | {"doubt-squared": maps["least-confidence"].square()})

    def _scores(self, network, batch):
        return network(batch.image).float() * float(self.config["gain"])


class _Summary(nn.Module):
    def forward(self, image):
        flat = image.flatten(1)
        return torch.stack([flat.amax(1), flat.mean(1)], dim=1)


class Summaries(NetworkFamily):
    """A linear layer on powers of the brightest pixel and the mean."""

    kind = "images"
    space: ClassVar = {"powers": {"low": 1, "high": 3, "default": 2}, "softened": False}

    def layers(self, outputs):
        powers = self.whole("powers")
        last = nn.Linear(2 * powers, outputs, bias=not self.flag("softened"))
        return [_Summary(), _Powers(powers), last]


class _Powers(nn.Module):
    def __init__(self, powers):
        super().__init__()
        self.powers = powers

    def forward(self, values):
        return torch.cat([values**power for power in range(1, self.powers + 1)], dim=1)


class Bars(Layout[int]):
    """Noise with a bright bar in every other image."""

    name = "bars"
    tasks = (TaskName.CLASSIFICATION,)
    classes = ("none", "bar")
    licence = "none"
    citation = "none"

    def cases(self) -> Iterator[int]:
        yield from range(60)

    def load(self, case: int) -> Iterator[Sample]:
        draw = np.random.default_rng((self.seed, case))
        image = draw.random((1, self.size, self.size), dtype=np.float32) * 0.5
        if case % 2:
            image[:, case % self.size] = 1.0
        yield Sample(
            sample_id=f"bar-{case:03d}", patient_id=f"p{case:03d}", site="a", image=image,
            label=case % 2,
        )  # fmt: skip

    def source_digest(self) -> str:
        return hashlib.sha256(b"bars").hexdigest()


class Fading(ImageCorruption[float]):
    """Fades to grey, f x + (1 - f) / 2."""

    name = "fading"
    severities = (0.9, 0.7, 0.5, 0.3, 0.1)

    def apply(self, image, parameter, seeds):
        return image * parameter + (1 - parameter) / 2


class LongStep(PGD):
    """PGD whose first step reaches the surface of the ball."""

    def default_step_size(self, epsilon):
        return epsilon


class Rarely(RandomFraction):
    """Attacks the fraction at every other step."""

    def choose(self, size, score, seeds, step):
        return super().choose(size, score, seeds, step) if step % 2 else ()


class Loudness(SumState):
    """How sure a model is, mean over images."""

    names = ("loudness",)
    fields: ClassVar = {"total": (), "count": ()}

    def update(self, prediction, batch):
        p = classes(prediction, batch)[0]
        self.add(total=p.amax(dim=1).double().sum(), count=len(p))

    def compute(self):
        return {"loudness": ratio(self.sums["total"], self.sums["count"])}


class Loudest(Section[float]):
    """The highest mean confidence of a run's trials."""

    after = "front"
    files: ClassVar = {"page.html.j2": "<section><h2>Loudest: {{ data | number }}</h2></section>"}

    def gather(self, run):
        return max((t.metrics["clean.loudness"] for t in run.completed), default=None)


METHODS.register("brightest", Brightest)
NETWORKS.register("summaries", Summaries)
LAYOUTS.register("bars", Bars)
CORRUPTIONS.register("fading", Fading)
ATTACKS.register("long-step", LongStep)
REGIMES.register("rarely", Rarely)
SECTIONS.register("loudest", Loudest)
MAPS.register("doubt-squared", "square of the probability that the predicted label is wrong")
SUITES.register("faint", {"fading": (0.95, 0.9, 0.85, 0.8, 0.75)})
METRICS.register(
    "loudness",
    MetricInfo(
        "loudness", None, 0.0, 1.0, "", "Mean confidence", {TaskName.CLASSIFICATION: Loudness}
    ),
)  # fmt: skip


class Mirrored(Condition):
    """Images mirrored along one axis, counted from the last."""

    name = "mirrored"

    def describe(self, detail):
        if not detail:
            return "mean over the axes"
        return f"mirrored along axis -{detail}" if detail in ("1", "2") else None

    def perturb(self, batch, member, tools, before):
        return batch.with_image(batch.image.flip(-int(member)))


CONDITIONS.register("mirrored", Mirrored)


class Lagging(Policy):
    """Stops what lies further than a margin behind the best at its rung, by the first objective."""

    def __init__(self, objectives, constraints=(), *, rungs, seed=0, margin=1.0):
        super().__init__(objectives, constraints, rungs=rungs, seed=seed)
        self.margin = margin
        self.best = [float("-inf")] * rungs

    def report(self, trial, rung, metrics):
        objective = self.objectives[0]
        value = metrics[objective.name] * (1 if objective.direction == "max" else -1)
        self.best[rung] = max(self.best[rung], value)
        behind = self.best[rung] - value
        return Verdict(behind > self.margin, f"{behind:.3g} behind" if behind > self.margin else "")

    def end(self, trial, metrics):
        pass


POLICIES.register("lagging", Lagging)
