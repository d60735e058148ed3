"""Whole sweeps on a real Ray, through the command line as a user runs it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trustsweep.distributed.run.ledger import SEARCH, Ledger, State

pytestmark = pytest.mark.slow

STUDY = {
    "name": "small",
    "methods": ["unet", "evidential-unet"],
    "objectives": ["dice_area", "clean.brier"],
    "constraints": ["clean.nll <= 100"],
    "space": {
        "epochs": 2,
        "width": 4,
        "weight_decay": 0.0,
        "corruption_fraction": 0.2,
        "dice_weight": 0.5,
        "learning_rate": {"choices": [0.01, 1e30]},
        "regime": {"choices": ["none", "uncertain"]},
        "attack": "fgsm",
        "epsilon": 0.01,
        "attack_fraction": 0.5,
        "selection_measure": "default",
        "selection_score": "mean",
        "risk": "type-2",
        "kl_weight": 0.1,
    },
    "search": {"trials": 8, "sampler": "grid"},
    "seeds": 2,
    "baseline": {"method": "unet", "learning_rate": 0.01, "regime": "none"},
    "evaluation": {
        "epsilons": [0, 0.01, 0.02],
        "attack_steps": 2,
        "corruptions": ["gaussian-blur"],
        "severities": [1, 5],
        "final": "fast",
    },
}


def trustsweep(*arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "COLUMNS": "200"}
    environment.pop("RAY_ADDRESS", None)
    command = [Path(sys.executable).parent / "trustsweep", *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.fixture(scope="module")
def run(phantoms, tmp_path_factory) -> Path:
    """A finished sweep: four trials that train and four that diverge, and the front's repeats."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    done = trustsweep("sweep", folder / "study.yaml", "--data", phantoms, "--out", folder / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder / "run"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def finals(cards: Path, ids: set[str] | None = None) -> set[str]:
    """The attacks that have judged these models (all, if not given) in the end."""
    found = {path.stem: json.loads(path.read_text()) for path in cards.glob("*.json")}
    return {found[name]["attack"]["name"]["final"] for name in ids or found}


def searched(run: Path) -> list[dict[str, str]]:
    """The rows of the first stage."""
    return [row for row in rows(run / "trials.csv") if row["stage"] == "search"]


def test_diverged_trials_fail_with_their_reason_and_the_others_complete(run):
    table = searched(run)
    assert sorted(int(row["number"]) for row in table) == list(range(8))
    for row in table:
        diverges = float(row["config.learning_rate"]) > 1
        assert row["state"] == ("failed" if diverges else "completed")
        assert ("diverged" in row["reason"]) == diverges
        if not diverges:
            assert row["epochs"] == "2"
            assert 0 <= float(row["metric.dice_area"]) <= 1
    on_front = {row["id"] for row in rows(run / "front.csv")}
    assert on_front
    assert on_front <= {row["id"] for row in table if row["state"] == "completed"}


def test_the_front_and_the_baseline_are_trained_under_seeds_of_their_own(run):
    """The baseline's configuration is one of the search's as well, under the search's seed 0."""
    repeats = [row for row in rows(run / "trials.csv") if row["stage"] == "seeds"]
    front = {row["id"] for row in rows(run / "front.csv")}
    known = {row["id"]: row for row in searched(run)}
    assert front <= {row["of"] for row in repeats} <= front | {"baseline"}
    for row in repeats:
        assert row["state"] == "completed"
        assert row["config.seed"] in ("1", "2")
        if row["of"] in known:
            original = known[row["of"]]
            differing = {k for k in row if k.startswith("config.") and row[k] != original[k]}
            assert differing == {"config.seed"}
    assert len({row["id"] for row in rows(run / "trials.csv")}) == 8 + len(repeats)


def test_the_ledger_and_optuna_say_the_same(run):
    ledger = Ledger(run)
    storage = JournalStorage(JournalFileBackend(str(run / "optuna-journal.log")))
    study = optuna.load_study(study_name="small", storage=storage)
    assert not [t for t in study.trials if t.state == TrialState.RUNNING]
    told = {t.user_attrs["id"]: t for t in study.trials}
    assert len(told) == len(study.trials) == 8
    for record in ledger.of(State.COMPLETED, SEARCH):
        values = [record.metrics[name] for name in STUDY["objectives"]]
        assert told[record.id].values == pytest.approx(values)
        assert told[record.id].user_attrs["config"] == record.config
    assert all(told[r.id].state == TrialState.FAIL for r in ledger.of(State.FAILED))
    front = {t.user_attrs["id"] for t in study.best_trials}
    assert front == {row["id"] for row in rows(run / "front.csv")}


def test_the_hypervolume_rises_to_the_summarys(run):
    volumes = [float(row["hypervolume"]) for row in rows(run / "hypervolume.csv")]
    assert len(volumes) == 4
    assert volumes == sorted(volumes)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["hypervolume"] == pytest.approx(volumes[-1])
    completed = len(rows(run / "trials.csv")) - 4
    assert summary["counts"] == {"completed": completed, "failed": 4, "running": 0, "stopped": 0}
    assert (summary["sessions"], summary["interrupted"]) == (1, None)
    assert summary["cost"]["cost.seconds"] > 0


def test_every_finished_model_is_kept_as_safetensors_with_its_card(run):
    for record in Ledger(run).of(State.COMPLETED):
        folder = run / "checkpoints" / record.id
        assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]
        card = json.loads((folder / "model.json").read_text())
        assert card["config"] == record.config
        with safe_open(folder / "model.safetensors", "pt") as tensors:
            assert all(tensors.get_tensor(key).isfinite().all() for key in tensors.keys())  # noqa: SIM118


def test_the_front_is_judged_on_the_test_split(run, phantoms):
    for row in rows(run / "front.csv"):
        card = json.loads((run / "evaluation" / f"{row['id']}.json").read_text())
        assert card["split"] == "test"
        curve = card["curves"]
        assert curve["epsilon"] == [0.0, 0.01, 0.02]
        area = np.trapezoid(curve["dice"], curve["epsilon"]) / 0.02
        assert card["metrics"]["dice_area"] == pytest.approx(area)
        assert "corrupted@gaussian-blur-5.dice" in card["metrics"]
        with np.load(run / "evaluation" / f"{row['id']}.npz", allow_pickle=False) as panel:
            budget = float(panel["epsilon"])
            change = np.abs(panel["image_attacked"].astype(float) - panel["image"])
            assert 0 < change.max() <= budget + 1e-3


def test_tensorboard_has_curves_and_hyperparameters(run):
    record = Ledger(run).of(State.COMPLETED)[0]
    events = EventAccumulator(str(run / "tensorboard" / record.id))
    events.Reload()
    assert len(events.Scalars("train.loss")) == 2
    assert events.Scalars("dice_area")[-1].value == pytest.approx(record.metrics["dice_area"])
    assert any("hparams" in tag for tag in events.summary_metadata)


def test_the_terminal_ends_with_front_failures_and_report(run):
    output = (run.parent / "output.txt").read_text()
    assert "The front:" in output
    assert output.count("\nfailed: ") == 4
    assert "evaluation.final=full" in output
    assert output.rstrip().endswith(f"Report: {run / 'report.html'}")
    assert "Traceback" not in output
    assert (run / "report.html").read_text().count("<html") == 1
    assert len(list((run / "figures").glob("*.png"))) >= 6


def test_the_report_is_written_anew_from_the_folder_alone(run):
    before = (run / "trials.csv").read_text()
    (run / "report.html").unlink()
    (run / "trials.csv").unlink()
    done = trustsweep("report", run)
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").is_file()
    assert (run / "trials.csv").read_text() == before


def test_more_trials_may_be_asked_for_and_what_has_finished_is_not_run_again(phantoms, tmp_path):
    study = {
        **STUDY,
        "methods": ["unet"],
        "space": {**STUDY["space"], "learning_rate": {"low": 0.001, "high": 0.01}, "epochs": 1},
        "search": {"trials": 2, "sampler": "random"},
        "seeds": 1,
        "baseline": None,
        "evaluation": {**STUDY["evaluation"], "final": "fast"},
    }
    for key in ("risk", "kl_weight"):
        del study["space"][key]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    first = trustsweep(
        "sweep", tmp_path / "study.yaml", "--data", phantoms, "--out", tmp_path / "run"
    )
    assert first.returncode == 0, first.stdout + first.stderr
    before = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    cards = tmp_path / "run" / "evaluation"
    assert finals(cards) == {"fast"}
    again = trustsweep(
        "sweep", "--resume", tmp_path / "run", "--trials", 3, "--set", "evaluation.final=full"
    )
    assert again.returncode == 0, again.stdout + again.stderr
    # What stands on the front now was judged anew; what has left it keeps its card.
    front = {row["id"] for row in rows(tmp_path / "run" / "front.csv")}
    assert finals(cards, front) == {"full"}
    assert "2 trials have ended and are kept" in again.stdout
    after = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    assert after.startswith(before)
    assert after[len(before) :].count(b'"event": "start"') == 1
    assert {row["number"] for row in rows(tmp_path / "run" / "trials.csv")} == {"0", "1", "2"}
    refused = trustsweep(
        "sweep", tmp_path / "study.yaml", "--data", phantoms, "--resume", tmp_path / "run",
        "--set", "evaluation.final=full",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "search.trials: 3 -> 2" in refused.stderr


def test_train_runs_one_model_with_the_given_parameters(phantoms, tmp_path):
    done = trustsweep(
        "train", "evidential-unet", "--data", phantoms, "--out", tmp_path / "one",
        "--set", "epochs=1", "--set", "width=4", "--set", "regime=random", "--set", "attack=fgsm",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = rows(tmp_path / "one" / "trials.csv")
    assert (row["state"], row["config.regime"], row["config.epochs"]) == (
        "completed",
        "random",
        "1",
    )
    assert "config.attack_steps" not in row  # fgsm takes one
