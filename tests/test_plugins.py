"""Everything that can be added from outside of the repository, as one file that a user names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trustsweep.data_pipelines import plugins
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.streams import Samples

ROOT = Path(__file__).parents[1]
EVERYTHING = ROOT / "tests" / "everything_plugin.py"
EXAMPLE = ROOT / "docs" / "examples" / "own_model.py"
OWN_LAYOUT = ROOT / "docs" / "examples" / "own_layout.py"


def trustsweep(*words: object, folder: Path = ROOT, seconds: float = 120) -> str:
    """What the command prints; it must succeed. In a process of its own: plug-ins stay loaded."""
    done = run(*words, folder=folder, seconds=seconds)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def run(*words: object, folder: Path = ROOT, seconds: float = 120) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "trustsweep", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds,
        check=False,
    )  # fmt: skip


def test_a_plugin_adds_one_of_everything_by_one_line_each():
    listed = trustsweep("list", "--plugin", EVERYTHING)
    for name, meaning in {
        "brightest": "Logistic regression on the brightest pixel and the mean.",
        "summaries": "A linear layer on powers of the brightest pixel and the mean.",
        "bars": "Noise with a bright bar in every other image.",
        "fading": "Fades to grey",
        "long-step": "PGD whose first step reaches the surface of the ball.",
        "rarely": "Attacks the fraction at every other step.",
        "loudness": "Mean confidence",
        "loudest": "The highest mean confidence of a run's trials.",
        "doubt-squared": "square of the probability that the predicted label is wrong",
        "faint": "fading",
        "mirrored": "Images mirrored along one axis, counted from the last.",
        "lagging": "Stops what lies further than a margin behind the best at its rung",
    }.items():
        (line,) = [line for line in listed.splitlines() if line.split()[:1] == [name]]
        assert meaning in line


@pytest.mark.slow
def test_a_study_may_name_what_a_plugin_added_and_is_checked_against_it(tmp_path):
    data = tmp_path / "data"
    trustsweep("prepare", "--layout", "bars", "--size", 16, "--out", data, "--plugin", EVERYTHING)
    study = [
        "train", "brightest", "--data", data, "--dry-run", "--set", "regime=rarely",
        "--set", "attack=long-step", "--set", "attack_steps=2",
        "--set", "evaluation.corruptions=[fading]", "--set", "evaluation.suite=faint",
        "--set", "objectives=[mirrored.balanced_accuracy]", "--set",
    ]  # fmt: skip
    mirrored = "evaluation.conditions=[mirrored@2]"
    shown = trustsweep(*study, mirrored, "--plugin", EVERYTHING)
    assert "gain: 2.0" in shown
    # An iterative attack has steps, and a regime that attacks an ε, without a line anywhere else.
    assert "attack_steps: 2" in shown
    ranked = [
        "train", "brightest", "--data", data, "--dry-run", "--set", "regime=uncertain",
        "--set", "selection_measure=doubt-squared",
    ]  # fmt: skip
    assert "selection_measure: doubt-squared" in trustsweep(*ranked, "--plugin", EVERYTHING)
    refused = run(*study, mirrored, "--plugin", EVERYTHING, "--set", "gain=11")
    assert refused.returncode == 2
    assert "space.gain: 11 is outside [0.1, 10]" in refused.stderr
    for given, words in {
        "mirrored@3": "'mirrored@3' is no condition as mirrored names them",
        "mirrored": "'mirrored' is no condition as mirrored names them",
        "mirored@1": "did you mean 'mirrored'",
        "attacked@0.01": "not listed here: give evaluation.epsilons",
    }.items():
        other = run(*study, f"evaluation.conditions=[{given}]", "--plugin", EVERYTHING)
        assert other.returncode == 2
        assert words in other.stderr
    # A network brings its parameters to the methods that may choose it, for where it is chosen.
    method = ["train", "classifier", "--data", data, "--dry-run", "--plugin", EVERYTHING, "--set"]
    with_own = trustsweep(*method, "network=summaries", "--set", "powers=3")
    assert "network: summaries" in with_own
    assert "powers: 3" in with_own
    assert "softened: false" in with_own
    for given, words in {
        "powers=2.5": "space.powers: 2.5 is not a whole number",
        "network=summary": "did you mean 'summaries'",
        "network=unet": "space.network: 'unet'",
    }.items():
        other = run(*method, given)
        assert other.returncode == 2
        assert words in other.stderr
    unknown = run(*study, mirrored)
    assert "unknown method 'brightest'" in unknown.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nraise ValueError('no')\n", "line 2: ValueError: no"),
        ("x = (\n", "line 1: SyntaxError"),
        (
            "from trustsweep import METHODS\nMETHODS.register('unet', object())\n",
            "method 'unet' is registered already",
        ),
        (
            "from trustsweep import CONDITIONS, Condition\n"
            "class Tilted(Condition):\n    name = 'tilt'\n"
            "CONDITIONS.register('tilted', Tilted)\n",
            "condition 'tilted' calls itself 'tilt'. Give it one name",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named_with_its_line(tmp_path, monkeypatch, text, words):
    monkeypatch.setenv(plugins.PLUGINS, "")
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        plugins.use([path])
    assert str(path) in str(error.value)
    assert "trustsweep_plugin_broken" not in sys.modules


def test_a_plugin_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(plugins.PLUGINS, "")
    with pytest.raises(UserError, match="no such file"):
        plugins.use([tmp_path / "missing.py"])


def test_the_digest_goes_by_what_files_hold_and_not_by_their_order(tmp_path, monkeypatch):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("x = 1\n")
    two.write_text("x = 2\n")

    def digest(*paths):
        monkeypatch.setenv(plugins.PLUGINS, os.pathsep.join(map(str, paths)))
        return plugins.digest()

    both = digest(one, two)
    assert digest(two, one) == both
    assert len({both, digest(one), digest()}) == 3
    two.write_text("x = 3\n")
    assert digest(one, two) != both


def test_a_folder_of_ones_own_is_read_by_the_example(tmp_path):
    rng = np.random.default_rng(0)
    for name, brightness in (("healthy", 60), ("sick", 180)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(brightness - 50, brightness + 50, (16, 16), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    data = tmp_path / "data"
    told = trustsweep(
        "prepare", tmp_path / "images", "--layout", "class-folders", "--plugin", OWN_LAYOUT,
        "--out", data,
    )  # fmt: skip
    manifest = Manifest.load(data)
    assert manifest.classes == ("healthy", "sick")
    assert sum(manifest.split_counts.values()) == 24
    assert "patient" in told
    samples = Samples.read(data, Split.TRAIN)
    batch = samples.batch(range(len(samples)))
    assert batch.label.tolist() == (batch.image.flatten(1).mean(dim=1) > 0.45).long().tolist()


@pytest.mark.slow
def test_a_sweep_on_nothing_of_ours_reaches_its_front_and_its_report(tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    trustsweep("prepare", "--layout", "bars", "--size", 16, "--out", data, "--plugin", EVERYTHING)
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: outside\n"
        "methods: [brightest, linear]\n"
        "objectives: [balanced_accuracy_area, clean.brier]\n"
        "space: {epochs: 2, regime: {choices: [none, rarely]}, attack: long-step}\n"
        "search: {trials: 3, sampler: random,\n"
        "  scheduler: {policy: lagging, settings: {margin: 2.0}}}\n"
        "evaluation: {epsilons: [0, 0.02], corruptions: [fading], severities: [3], final: fast,\n"
        "  conditions: [mirrored@1, mirrored@2]}\n"
    )
    both = ("--plugin", EVERYTHING, "--plugin", EXAMPLE)
    trustsweep("sweep", study, "--data", data, "--out", out, *both, seconds=500)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"]["completed"] == 3
    columns = (out / "trials.csv").read_text().partition("\n")[0]
    assert "clean.loudness" in columns
    assert "mirrored.balanced_accuracy" in columns
    assert "mirrored@2.loudness" in columns
    assert {p.name for p in (out / "plugins").iterdir()} == {"everything_plugin.py", "own_model.py"}
    # The copies within a run are never run by themselves.
    refused = run("report", out)
    assert refused.returncode == 2
    assert "--plugin" in refused.stderr
    copies = [w for p in sorted((out / "plugins").iterdir()) for w in ("--plugin", p)]
    trustsweep("report", out, *copies)
    assert "<section><h2>Loudest: " in (out / "report.html").read_text(encoding="utf-8")
