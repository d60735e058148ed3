"""Weights of modalities against their quality: closed forms and SciPy sample by sample."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from data_pipelines.schema import Batch
from trainables.contract import Prediction
from trainables.metrics.reliance import Reliance


def found(weight: np.ndarray, severity: np.ndarray, present: np.ndarray | None = None) -> dict:
    n = len(weight)
    batch = Batch(
        sample_id=tuple(f"s{i}" for i in range(n)),
        image=torch.zeros(n, 0),
        severity=torch.from_numpy(severity),
        present=None if present is None else torch.from_numpy(present).float(),
    )
    state = Reliance()
    for rows in np.array_split(np.arange(n), 3):
        part = batch.select(rows.tolist())
        state.update(
            Prediction(torch.zeros(len(rows), 2), {}, reliability=torch.from_numpy(weight[rows])),
            part,
        )
    return state.compute()


def draw(n: int = 60, modalities: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    present = rng.random((n, modalities)) < 0.7
    present[:, 0] = True
    severity = np.where(present, rng.integers(0, 6, (n, modalities)), 0).astype(float)
    weight = np.where(present, np.exp(-0.3 * severity + rng.normal(size=severity.shape)), 0)
    return weight / weight.sum(axis=1, keepdims=True), severity, present


def test_against_scipy_sample_by_sample() -> None:
    weight, severity, present = draw()
    single = [
        stats.spearmanr(w[p], s[p]).statistic
        for w, s, p in zip(weight, severity, present, strict=True)
        if len(set(s[p])) > 1
    ]
    result = found(weight, severity, present)
    assert result["within"] == pytest.approx(np.mean(single))
    whole = stats.spearmanr(weight[present], severity[present]).statistic
    assert result["overall"] == pytest.approx(whole)
    assert (result["pairs"], result["samples"]) == (present.sum(), len(single))


@pytest.mark.parametrize(("sign", "expected"), [(-1, -1.0), (1, 1.0), (0, 0.0)])
def test_weights_that_follow_turn_or_stay(sign: int, expected: float) -> None:
    _, severity, _ = draw()
    severity += np.linspace(0, 0.5, 4)  # no ties
    weight = np.exp(sign * severity)
    weight /= weight.sum(axis=1, keepdims=True)
    assert found(weight, severity)["within"] == pytest.approx(expected)


def test_what_cannot_be_compared() -> None:
    weight, severity, present = draw()
    same = found(weight, np.zeros_like(severity), present)
    assert math.isnan(same["within"])
    assert same["samples"] == 0
    assert math.isnan(found(np.full_like(weight, math.nan), severity)["overall"])
    assert math.isnan(Reliance().compute()["within"])
    with pytest.raises(ValueError, match="cannot be compared"):
        found(weight[:, :3], severity)
