"""Weights of modalities against their quality: closed forms and SciPy sample by sample."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.corruptions.suite import corrupt
from trustsweep.data_pipelines.schema import Batch, Manifest, Split
from trustsweep.data_pipelines.streams.indexed import Samples
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.fusion.draf import Draf
from trustsweep.trainables.fusion.inputs import gather, in_manifest_order, observed
from trustsweep.trainables.metrics.reliance import Reliance
from trustsweep.trainables.reliance import reliance, weighed_samples


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
            Prediction(
                torch.zeros(len(rows), 2), {}, modality_weights=torch.from_numpy(weight[rows])
            ),
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
    assert math.isnan(same["within_p"])
    assert math.isnan(Reliance().compute()["within"])
    assert math.isnan(Reliance().compute()["overall_p"])
    with pytest.raises(ValueError, match="cannot be compared"):
        found(weight[:, :3], severity)


def test_chance_is_as_wide_as_its_closed_form() -> None:
    weight, severity, present = draw(200)
    result = found(weight, severity, present)
    # A permuted rank correlation of k values has mean 0 and variance 1/(k - 1), ties or not.
    sizes = [p.sum() for s, p in zip(severity, present, strict=True) if len(set(s[p])) > 1]
    deviation = math.sqrt(sum(1 / (k - 1) for k in sizes)) / len(sizes)
    assert result["within_low"] == pytest.approx(-1.96 * deviation, rel=0.12)
    assert result["within_high"] == pytest.approx(1.96 * deviation, rel=0.12)
    assert result["within_p"] == result["overall_p"] == 0.001  # these weights do follow


def test_weights_that_know_nothing_of_severity_are_seldom_called_reliant() -> None:
    rng = np.random.default_rng(1)
    p = []
    for _ in range(60):
        weight, severity, present = draw(20)
        severity = np.where(present, rng.integers(0, 6, severity.shape), 0).astype(float)
        p.append(found(weight, severity, present)["within_p"])
    # Of 60, more than 8 below 0.05 would happen once in 500 times by chance.
    assert 0 <= sum(value < 0.05 for value in p) <= 8
    assert 0.3 < np.mean(p) < 0.7


@pytest.fixture(scope="module")
def heart(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Draf, Batch, Batch]:
    """Equal weights, and the real test samples as they are and made worse."""
    out = tmp_path_factory.mktemp("data") / "heart"
    prepare(real_data / "uci_heart_disease", "uci-heart", out, size=32)
    manifest = Manifest.load(out)
    config = Space(["draf"], {"epochs": 1, "alpha": 0, "beta": 0}).defaults("draf")
    samples = Samples.read(out, Split.TEST)
    batch = samples.batch(range(len(samples)))
    return Draf(config, manifest), batch, corrupt(batch, "mixed-quality", 5, manifest=manifest)


def test_equal_weights_follow_nothing_on_real_tables(heart: tuple[Draf, Batch, Batch]) -> None:
    method, _, mixed = heart
    network = method.network()
    result = reliance(method, network, [mixed]).compute()
    assert result["within"] == pytest.approx(0, abs=1e-12)
    assert result["within_p"] == 1
    assert result["within_low"] <= 0 <= result["within_high"]
    assert result["overall_low"] <= result["overall"] <= result["overall_high"]
    assert result["overall_p"] > 0.05
    # Were the blanked ones counted, the same weights would seem to turn away from what is bad.
    fooled = Reliance()
    fooled.update(method.predict(network, mixed), mixed)
    assert fooled.compute()["within"] < -0.05


def test_what_was_blanked_is_shown_as_absent(heart: tuple[Draf, Batch, Batch]) -> None:
    method, clean, mixed = heart
    seen = observed(mixed, method.manifest)
    assert torch.equal(seen, in_manifest_order(gather(mixed, method.manifest)[1], method.manifest))
    blanked = observed(clean, method.manifest) & ~seen
    assert blanked.any()
    arrays = weighed_samples(method, method.network(), clean, mixed)
    assert not arrays["sample_weights_mixed"][blanked.numpy()].any()
    assert np.array_equal(arrays["sample_present_mixed"], seen.numpy())
    everything = dataclasses.replace(mixed, present=torch.zeros_like(seen).float())
    assert not observed(everything, method.manifest).any()
