"""The evaluation card of a model: its results on the test split, which the search never used.

`evaluation/<id>.json` in a run folder, written by `distributed.sweep.test_evaluation`, read by the
report and the comparison of seeds, without torch and Ray. Models of the search also have
`<id>.npz`, arrays of the samples that the report shows, and `<id>.parquet`, the scores of every
sample (`trustsweep.distributed.run.sample_table`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import Split
from trustsweep.distributed.statistics.inference import Estimate
from trustsweep.search_spaces.space import Value
from trustsweep.trainables.registry import FULL

#: Raise it when the keys of a card, or their meaning, change.
CARD_VERSION = 3


class _Part(BaseModel):
    # Built where a card is read: most commands read none.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Asked(_Part):
    """The study's request: the final attack (`evaluation.final`) and metrics by name."""

    final: str
    metrics: list[str]


class Bins(_Part):
    """A reliability diagram; an empty bin has no confidence or accuracy."""

    confidence: list[float | None]
    accuracy: list[float | None]
    count: list[float]


class Threshold(_Part):
    """Of uncertainty: the share of the images to answer that it was chosen for on the validation
    split, and the `coverage` that it reaches there."""

    target: float
    threshold: float
    coverage: float


class RiskCoverage(_Part):
    """The mean error among the most certain images, by their share; points of one length."""

    coverage: list[float]
    risk: list[float]


class Abstaining(_Part):
    """What a condition gives: the curve, the quality of all answers, and for each threshold its
    "coverage" and the quality of the answers that it accepts."""

    curve: RiskCoverage
    all: dict[str, float]
    accepted: list[dict[str, float]]


class Selective(_Part):
    """See `trustsweep.distributed.sweep.selective`."""

    thresholds: list[Threshold]
    conditions: dict[str, Abstaining]

    @property
    def limits(self) -> dict[float, float]:
        """The threshold of uncertainty for each target coverage."""
        return {threshold.target: threshold.threshold for threshold in self.thresholds}


class Unseen(_Part):
    """Sites that no other split holds; their metrics are those of the condition "ood"."""

    samples: int


class ModalityWeights(_Part):
    """`trustsweep.trainables.metrics.reliance.Reliance`; intervals and p where there is a test."""

    modalities: list[str]
    corruption: str
    overall: float
    within: float
    pairs: float
    samples: float
    overall_low: float = np.nan
    overall_high: float = np.nan
    overall_p: float = np.nan
    within_low: float = np.nan
    within_high: float = np.nan
    within_p: float = np.nan


class SplitEstimates(_Part):
    """Headline figures of a split, with their intervals and how many stand behind them.

    `figures` are under the attack of the search, `final` those under the full ensemble.
    """

    images: int
    patients: int
    sites: int
    figures: dict[str, Estimate]
    final: dict[str, Estimate] = {}


class GroupEstimates(_Part):
    """Samples that share a value of a group column; of a label, those where it is known, of which
    `positive` have it."""

    group: str
    value: str
    images: int
    patients: int
    positive: int | None = None
    figures: dict[str, Estimate]


class GroupsCard(_Part):
    """See `trustsweep.distributed.statistics.estimates.group_estimates`; of one split."""

    split: str
    least: int
    conditions: list[str]
    rows: list[GroupEstimates]


class AttackNames(_Part):
    """The attack of the search, and that of the final evaluation."""

    search: str
    final: str


class MaskingSigns(_Part):
    """Signs of gradient masking: those that are set, and what every sign means."""

    samples: int
    epsilon: float
    figures: dict[str, float]
    signs: dict[str, str]
    meanings: dict[str, str]


class AttackCard(_Part):
    """See `trustsweep.distributed.sweep.robustness.attack_card`."""

    name: AttackNames
    norm: str
    epsilons: list[float]
    search: list[dict[str, Any]]
    final: list[dict[str, Any]]
    left_out: list[str]
    gap: dict[str, float]
    masking: MaskingSigns


class Scaling(_Part):
    """Clean figures of calibration before and after temperature scaling."""

    before: dict[str, float]
    after: dict[str, float]


class Temperature(_Part):
    """The fitted T, and what it makes of either split."""

    value: float
    val: Scaling | None = None
    test: Scaling


class RiskGroup(_Part):
    """See `trustsweep.trainables.metrics.survival.risk_groups`."""

    name: str
    patients: int
    events: int
    time: list[float]
    alive: list[float]
    predicted: list[float]


class SurvivalCard(_Part):
    """How times were measured (`FollowUp`), and patients by predicted risk, by condition."""

    unit: str
    edges: list[float]
    groups: dict[str, list[RiskGroup]]


class EvaluationCard(_Part):
    """One model on one split. A part that its task or its data do not have is None or empty.

    Attributes:
        version: `CARD_VERSION`.
        config, code: What was trained, and the revision of the code that trained it.
        asked: What the study requested when the model was evaluated.
        metrics: By full name; those under attack are under the final attack.
        trivial, triviality: Figures of the predictors that ignore the image, by predictor and
            metric, and a phrase where the model is no better.
        curves: Against ε: "epsilon" and, of the same length, metrics by leaf name.
        reliability: By condition.
        estimates: By split.
    """

    version: int
    id: str
    split: str
    metrics: dict[str, float]
    classes: list[str] = []
    config: dict[str, Value] = {}
    code: str = ""
    asked: Asked | None = None
    trivial: dict[str, dict[str, float]] = {}
    triviality: str = ""
    curves: dict[str, list[float]] = {}
    reliability: dict[str, Bins] = {}
    selective: Selective | None = None
    temperature: Temperature | None = None
    ood: Unseen | None = None
    weights: ModalityWeights | None = None
    attack: AttackCard | None = None
    estimates: dict[str, SplitEstimates] = {}
    groups: GroupsCard | None = None
    survival: SurvivalCard | None = None

    _path: Path | None = PrivateAttr(default=None)

    @classmethod
    def read(cls, path: Path) -> EvaluationCard:
        """Raises `UserError` for a file that is no card, or a card of another version."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}). Is this file whole?") from error
        version = raw.get("version") if isinstance(raw, dict) else None
        if version != CARD_VERSION:
            stated = "no version stated" if version is None else f"version {version}"
            raise _of_another_version(path, stated)
        try:
            card = cls.model_validate(raw)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise _of_another_version(path, f"{key}: {problem['msg'].lower()}") from error
        card._path = path
        return card

    @classmethod
    def write(cls, path: Path, content: Mapping[str, Any]) -> None:
        """Check a card's content and write it, with its version, as a whole.

        Raises ValueError for content that is no card: `read` would refuse it.
        """
        raw = {"version": CARD_VERSION, **content}
        cls.model_validate(raw)
        write_atomically(path, json.dumps(raw, indent=2))

    @cached_property
    def panel(self) -> dict[str, np.ndarray]:
        """Arrays of the samples that the report shows, by name; none where they were not kept.

        Raises `UserError` for a broken file.
        """
        arrays = self._path.with_suffix(".npz") if self._path else None
        if arrays is None or not arrays.is_file():
            return {}
        try:
            with np.load(arrays, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (ValueError, OSError, BadZipFile) as error:
            raise UserError(f"{arrays}: unreadable arrays. Evaluate the front again.") from error

    @property
    def samples(self) -> Path | None:
        """The table of what each sample scored; None where none was kept."""
        table = self._path.with_suffix(".parquet") if self._path else None
        return table if table is not None and table.is_file() else None

    @property
    def on_test(self) -> bool:
        """Whether the model was evaluated on the test split."""
        return self.split == Split.TEST

    @property
    def fully_attacked(self) -> bool:
        """Whether its figures under attack are those under the full ensemble."""
        return self.attack is not None and self.attack.name.final == FULL

    @property
    def signs(self) -> dict[str, str]:
        """The signs of gradient masking that are set, each with its meaning."""
        return {} if self.attack is None else self.attack.masking.signs


def read_cards(folder: Path) -> dict[str, EvaluationCard]:
    """Every card of an `evaluation` folder, by model; none where there is no such folder.

    Raises `UserError` as `EvaluationCard.read`.
    """
    return {card.id: card for card in map(EvaluationCard.read, sorted(folder.glob("*.json")))}


def _of_another_version(path: Path, version: str) -> UserError:
    return UserError(
        f"{path}: an evaluation card of another version ({version}; this one reads version "
        f"{CARD_VERSION}). Move it away and evaluate the front again: trustsweep sweep --resume "
        f"{path.parent.parent}"
    )
