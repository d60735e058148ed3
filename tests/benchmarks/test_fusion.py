"""benchmarks/fusion.py: figures against a library, claims that hold and claims that do not."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from comparing.claims import HELD, NOT_HELD, NOT_TESTABLE
from comparing.figures import Arm, by_patient
from comparing.models import EvaluatedModel, candidates
from fused.claims import evaluate_claims
from fused.figures import BASELINES, METHOD, clean, drop, gain
from fused.models import COVERAGE, threshold
from sklearn.metrics import precision_score, roc_auc_score

ROOT = Path(__file__).parents[2]
SIZE = 200


def columns(signal: float, boldness: float, rng: np.random.Generator, truth: np.ndarray) -> dict:
    """A calibrated score of some signal, made too bold (> 1) or too timid (< 1)."""
    score = signal * (2 * truth - 1) + np.sqrt(signal) * rng.normal(size=SIZE)
    p = 1 / (1 + np.exp(-2 * boldness * score))
    predicted = (p > 0.5).astype(int)
    return {
        "truth": truth, "predicted": predicted, "correct": (predicted == truth).astype(float),
        "probability": np.stack([1 - p, p], axis=1), "uncertainty": 1 - np.maximum(p, 1 - p),
        "probability_of_truth": np.where(truth == 1, p, 1 - p),
    }  # fmt: skip


def model(seed: int, *, worse: float, boldness: float, rho: float = -0.3) -> EvaluatedModel:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, SIZE)
    scores = {"clean": columns(0.6, boldness, rng, truth)}
    scores |= {
        f"corrupted@{kind}-{s}": columns(worse, boldness, rng, truth)
        for kind in ("mixed-quality", "modality-drop", "value-noise")
        for s in (1, 2)
    }
    sure = float(np.quantile(scores["clean"]["uncertainty"], COVERAGE))
    card = {
        "selective": {"thresholds": [{"target": COVERAGE, "threshold": sure}]},
        "reliance": {"within": rho + 0.01 * rng.normal(), "within_low": -0.1},
        "metrics": {}, "ood": {},
    }  # fmt: skip
    return EvaluatedModel(card, scores, [f"p{i // 2}" for i in range(SIZE)])


def arm(**how) -> Arm:
    return Arm([[model(10 * fold + seed, **how) for seed in (1, 2)] for fold in range(5)])


def claims_of(mine: Arm, theirs: Arm) -> dict[tuple[str, str], object]:
    found = evaluate_claims(
        {"toy": {METHOD: mine, **dict.fromkeys(BASELINES, theirs)}}, {"toy": (400, 100)}
    )
    return {(claim.claim, claim.against): claim for claim in found}


def test_figures_are_those_of_the_library_meaned_over_folds_and_seeds():
    one = arm(worse=0.5, boldness=1.0)
    every = [one_model for fold in one.folds for one_model in fold]

    def auroc(model: EvaluatedModel, condition: str) -> float:
        scores = model.scores[condition]
        return roc_auc_score(scores["truth"], scores["probability"][:, 1])

    expected = np.mean([auroc(m, "clean") for m in every])
    estimate = by_patient(one, clean("auroc"))
    assert estimate.value == pytest.approx(expected)
    assert estimate.low < expected < estimate.high
    lost = [
        100 * (1 - np.mean([auroc(m, c) for c in m.scores if c != "clean"]) / auroc(m, "clean"))
        for m in every
    ]
    assert by_patient(one, drop).value == pytest.approx(np.mean(lost))
    gains = []
    for model in every:
        scores = model.scores["clean"]
        kept = scores["uncertainty"] <= threshold(model)
        told = [
            precision_score(scores["truth"][k], scores["predicted"][k], average="macro")
            for k in (kept, slice(None))
        ]
        gains.append(told[0] - told[1])
    assert by_patient(one, gain).value == pytest.approx(np.mean(gains))
    nothing = by_patient(one, clean("ece"), one)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_claims_hold_where_they_are_true_with_their_margins():
    strong = arm(worse=0.58, boldness=1.0)
    weak = arm(worse=0.05, boldness=5.0)
    found = claims_of(strong, weak)
    assert found["drop", "healnet"].verdict == HELD
    assert found["calibration", "early-fusion"].verdict == HELD
    assert found["abstention", "answering all"].verdict == HELD
    assert found["reliability", "permuted severities"].verdict == HELD


@pytest.mark.slow
def test_a_margin_is_a_margin_and_a_strong_baseline_leaves_nothing_to_test():
    # A little bolder is a little worse calibrated: by less than 30 %.
    mine, theirs = arm(worse=0.58, boldness=1.9), arm(worse=0.57, boldness=2.1)
    found = claims_of(mine, theirs)
    assert found["drop", "mda"].verdict == NOT_TESTABLE
    ece = found["calibration", "early-fusion"]
    assert ece.method < ece.other
    assert ece.verdict == NOT_HELD
    # Weights within what chance gives follow nothing, however steadily.
    blind = claims_of(arm(worse=0.58, boldness=1.9, rho=-0.08), theirs)
    assert blind["reliability", "permuted severities"].verdict == NOT_HELD


def test_candidates_begin_at_the_defaults_and_keep_what_makes_the_arm():
    defaults = {"method": "late-fusion", "rule": "majority", "seed": 0}
    drawn = partial(candidates, "fusion", defaults, {"rule": "majority"}, ["space.epochs=2"], 5)
    made = drawn(seed=1)
    assert made[0] == defaults
    assert {config["rule"] for config in made} == {"majority"}
    assert {config["epochs"] for config in made[1:]} == {2}
    assert len({config["learning_rate"] for config in made[1:]}) == 4
    assert made == drawn(seed=1)


@pytest.mark.slow
def test_quick_run_writes_its_document_and_trains_nothing_twice(tmp_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "benchmarks" / "fusion.py"), "--quick",
        "--out", str(tmp_path / "out"), "--json", str(tmp_path / "fusion.json"),
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert first.returncode == 0, first.stderr[-2000:]
    figures = json.loads((tmp_path / "fusion.json").read_text())
    tuned = figures["sets"]["phantoms"]["tuned"]
    assert set(tuned) == {METHOD, *BASELINES}
    assert all(len(folds) == 3 for row in tuned.values() for folds in row.values())
    text = (tmp_path / "out" / "fusion.md").read_text()
    assert text.index("What does not hold") < text.index("The proposal's claims")
    models = sorted((tmp_path / "out" / "models").rglob("*.json"))
    times = [path.stat().st_mtime_ns for path in models]
    again = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert [path.stat().st_mtime_ns for path in models] == times
    assert (tmp_path / "out" / "fusion.md").read_text() == text
