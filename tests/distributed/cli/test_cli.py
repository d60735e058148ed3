"""Bad input on the command line: one line on stderr that says what to do, exit code 2."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trustsweep.distributed.cli.app import main
from trustsweep.distributed.run.halt import Halted


@pytest.fixture
def trustsweep(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trustsweep", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    assert err.startswith("trustsweep: ")
    missing = [word for word in words if word not in err.splitlines()[0]]
    assert not missing, err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small QaTa-COV19-v2 as published, of generated images."""
    root = tmp_path / "QaTa-COV19-v2"
    for name, count in (("Train Set", 8), ("Test Set", 3)):
        for part in ("Images", "Ground-truths"):
            (root / name / part).mkdir(parents=True)
        for number in range(count):
            image = Image.effect_noise((40, 40), 60)
            image.save(root / name / "Images" / f"{name[:2]}{number}.png")
            mask = Image.new("L", (40, 40))
            mask.paste(255, (5, 5, 20, 10 + number))
            mask.save(root / name / "Ground-truths" / f"mask_{name[:2]}{number}.png")
    return root


def prepare(trustsweep, folder, *more):
    return trustsweep(
        "prepare",
        folder,
        "--layout",
        "qata-cov19",
        "--size",
        32,
        "--out",
        folder.parent / "out",
        *more,
    )


def test_a_whole_folder_prepares_and_a_second_call_does_nothing(trustsweep, folder):
    code, out, _ = prepare(trustsweep, folder)
    assert code == 0
    assert "3 test" in out
    before = (folder.parent / "out" / "manifest.json").stat().st_mtime_ns
    assert prepare(trustsweep, folder)[0] == 0
    assert (folder.parent / "out" / "manifest.json").stat().st_mtime_ns == before


def spoil_mask_missing(folder):
    (folder / "Train Set/Ground-truths/mask_Tr3.png").unlink()
    return "Tr3.png", "mask"


def spoil_mask_size(folder):
    Image.new("L", (41, 40)).save(folder / "Train Set/Ground-truths/mask_Tr2.png")
    return "mask_Tr2.png", "41 x 40"


def spoil_truncated(folder):
    file = folder / "Train Set/Images/Tr1.png"
    file.write_bytes(file.read_bytes()[:200])
    return "Tr1.png", "truncated"


def spoil_16_bit(folder):
    Image.new("I;16", (40, 40)).save(folder / "Test Set/Images/Te0.png")
    return "Te0.png", "16-bit"


def spoil_rgba(folder):
    Image.new("RGBA", (40, 40)).save(folder / "Test Set/Images/Te1.png")
    return "Te1.png", "RGBA"


@pytest.mark.parametrize(
    "spoil",
    [spoil_mask_missing, spoil_mask_size, spoil_truncated, spoil_16_bit, spoil_rgba],
)
def test_a_file_that_cannot_be_used_is_named_and_nothing_is_written(trustsweep, folder, spoil):
    words = spoil(folder)
    refused(prepare(trustsweep, folder), *words)
    assert not (folder.parent / "out").exists()


def test_a_list_of_patients_is_read_and_what_it_lacks_refused(trustsweep, folder):
    who, images = folder.parent / "who.csv", sorted(folder.glob("*/Images/*"))
    names = [image.name for image in images]
    who.write_text("\n".join(["file name,patient", *(f"{n},{n[:3]}" for n in names)]))
    assert prepare(trustsweep, folder, "--patients", who)[0] == 0
    shutil.rmtree(folder.parent / "out")
    who.write_text("\n".join(["file name,patient", *(f"{n},{n[:3]}" for n in names[1:])]))
    refused(prepare(trustsweep, folder, "--patients", who), str(images[0]), "not listed", str(who))
    refused(prepare(trustsweep, folder, "--patients", folder / "no.csv"), "no.csv", "no such file")
    refused(prepare(trustsweep, folder, "--set", f"patients={who}"), "write --patients instead")
    refused(
        trustsweep("prepare", "--patients", who, "--out", folder.parent / "out"),
        "layout phantoms: takes no --patients",
    )


def test_an_empty_test_set_is_refused(trustsweep, folder):
    for part in ("Images", "Ground-truths"):
        shutil.rmtree(folder / "Test Set" / part)
        (folder / "Test Set" / part).mkdir()
    refused(prepare(trustsweep, folder), "Test Set", "no images")


def test_what_prepare_cannot_find_is_named(trustsweep, tmp_path):
    out = ("--out", tmp_path / "out")
    nowhere = tmp_path / "nowhere"
    refused(trustsweep("prepare", nowhere, "--layout", "qata-cov19", *out), str(nowhere))
    refused(
        trustsweep("prepare", tmp_path, "--layout", "qata-cov", *out),
        "unknown layout",
        "did you mean 'qata-cov19'",
    )
    refused(trustsweep("prepare", "--set", "cuont=3", *out), "cuont", "did you mean 'count'")
    refused(trustsweep("prepare", "--set", "count", *out), "key=value")
    refused(trustsweep("prepare", "--set", "seed=3", *out), "--seed")


SWEEPS = [
    (["--set", "serach.trials=3"], ["serach", "did you mean 'search'"]),
    (["--set", "search.trails=3"], ["search.trails", "did you mean 'trials'"]),
    (["--set", "objectives=[clean.dcie]"], ["objectives", "clean.dcie", "clean.dice"]),
    (["--set", "objectives=[attacked@0.3.dice]"], ["objectives", "attacked@0.3.dice", "ε"]),
    (["--set", "constraints=['clean.dicee >= 1']"], ["constraints", "clean.dicee"]),
    (["--set", "evaluation.epsilons=[0, 2]"], ["evaluation.epsilons", "[0, 1]"]),
    (["--set", "space.epsilon=1.5"], ["space.epsilon", "[0, 1]"]),
    (["--set", "evaluation.attack=pdg"], ["evaluation.attack", "did you mean 'pgd'"]),
    (["--set", "space.attack=square"], ["space.attack", "'square' is not possible", "apgd"]),
    (["--set", "evaluation.corruptions=[blurr]"], ["evaluation.corruptions", "blurr"]),
    (["--set", "methods=[evidential]"], ["methods", "did you mean 'evidential-unet'"]),
    (["--set", "space.lerning_rate=1"], ["lerning_rate", "did you mean 'learning_rate'"]),
    (["--set", "resources.workers=4096"], ["resources", "4096 worker(s)"]),
    (["--set", "space.regime=uncertan"], ["space.regime", "did you mean 'uncertain'"]),
    (["--set", "space.width=abc"], ["space.width", "'abc' is not a whole number"]),
    (["--set", "search={trials: 3, trials: 4}"], ["--set", "key 'trials' stands twice"]),
    (["--set", "constraints=['clean.dice >= 1.1']"], ["constraints", "no model can meet"]),
    (["--warm-start", "nowhere"], ["nowhere", "no run here"]),
    (["--set", "methods=[classifier]", "--set", "space={}"], ["objectives", "segmentation"]),
]


@pytest.mark.parametrize(("more", "words"), SWEEPS)
def test_a_study_that_cannot_be_is_refused_before_anything_starts(
    trustsweep, phantoms, tmp_path, more, words
):
    out = tmp_path / "run"
    result = trustsweep("sweep", "evidential", "--data", phantoms, "--out", out, "--dry-run", *more)
    refused(result, *words)
    assert not out.exists()


def one_class_in_validation(folder: Path) -> Path:
    """BreastMNIST-shaped, with images of one class alone in the validation split."""
    draws = np.random.default_rng(1)
    arrays = {}
    for split, count in (("train", 60), ("val", 20), ("test", 20)):
        arrays[f"{split}_images"] = draws.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    arrays["val_labels"][:] = 1
    np.savez(folder / "breastmnist.npz", **arrays)
    return folder / "breastmnist.npz"


def test_an_objective_that_a_split_cannot_have_is_refused_by_a_dry_run(trustsweep, tmp_path):
    source, data = one_class_in_validation(tmp_path), tmp_path / "data"
    assert trustsweep("prepare", source, "--layout", "medmnist", "--out", data)[0] == 0
    plain = ("sweep", "classification", "--data", data, "--dry-run", "--set", "constraints=[]")
    for name, why in (
        ("clean.auroc", "fewer than two classes occur there"),
        ("skill.clean.accuracy", "a predictor that ignores the image is perfect there"),
    ):
        # Named first: to ask for a skill would be no help.
        result = trustsweep(*plain, "--set", f"objectives=[{name}, clean.ece]")
        refused(result, f"objectives: '{name}' does not exist on the val split", why)
    assert trustsweep(*plain, "--set", "objectives=[clean.nll, clean.accuracy]")[0] == 0


METRIC_PLUGIN = """
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.trainables.metrics.catalog import METRICS, MetricInfo

state = {TaskName.CLASSIFICATION: "trustsweep.trainables.metrics.confusion:Confusion"}
METRICS.register("own", MetricInfo("own", "max", 0.0, 1.0, "", "A metric of one's own", state))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "pgd"],
        ["list", "--plugin", "PLUGIN"],
        ["sweep", "evidential", "--data", "DATA", "--dry-run"],
        ["sweep", "classification", "--data", "DATA", "--dry-run", "--plugin", "PLUGIN"],
        ["sweep", "evidential-arms", "--data", "DATA", "--dry-run"],
        ["sweep", "evidential", "--data", "DATA", "--dry-run", "--set", "evaluation.attack=pgd"],
        [
            "sweep", "evidential", "--data", "DATA", "--dry-run",
            "--set", "fidelity.parameters={attack_steps: 0.5}",
        ],
        ["train", "unet", "--data", "DATA", "--dry-run"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_only_looks_loads_nothing_that_takes_seconds(arguments, phantoms, tmp_path):
    """That both answer at once follows from what they leave alone; a clock would fail by chance."""
    (tmp_path / "plugin.py").write_text(METRIC_PLUGIN)
    named = {"DATA": str(phantoms), "PLUGIN": str(tmp_path / "plugin.py")}
    command = ["trustsweep", *(named.get(word, word) for word in arguments)]
    code = (
        "import atexit, sys\n"
        "heavy = {'torch', 'ray', 'monai', 'optuna', 'pandas', 'scipy', 'sklearn', 'matplotlib'}\n"
        "atexit.register(lambda: print('LOADED', sorted(heavy & set(sys.modules))))\n"
        f"sys.argv = {command!r}\n"
        "from trustsweep.distributed.cli.app import main\n"
        "main()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("LOADED []\n"), done.stdout[-200:]


def test_missing_data_and_a_full_run_folder_are_refused(trustsweep, phantoms, tmp_path):
    refused(trustsweep("sweep", "evidential", "--data", tmp_path / "no"), "no prepared data set")
    refused(trustsweep("sweep", "evidential", "--dry-run"), "data", "--data")
    refused(trustsweep("sweep", "nosuch.yaml", "--data", phantoms), "nosuch.yaml")
    (tmp_path / "kept.txt").write_text("a night's work")
    refused(trustsweep("sweep", "evidential", "--data", phantoms, "--out", tmp_path), "not empty")
    refused(trustsweep("report", tmp_path), "no run here")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--resume", "nowhere"], ["nowhere", "no run here"]),
        (
            ["--resume", "nowhere", "--out", "elsewhere"],
            ["--resume", "continues in its own folder"],
        ),
        (["--resume", "nowhere", "--warm-start", "old"], ["--resume", "--warm-start"]),
        (["--resume", "nowhere", "--dry-run"], ["--dry-run", "--resume"]),
        (["--resume"], []),
        ([], ["Name a study", "--resume RUN"]),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(trustsweep, monkeypatch, tmp_path, more, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = trustsweep("sweep", *more)
    assert code == 2
    assert all(word in err for word in words), err
    assert not list(tmp_path.iterdir())


def test_a_sweep_left_half_way_says_how_to_go_on_and_ends_as_shells_expect(
    trustsweep, monkeypatch, phantoms, tmp_path
):
    def left(*arguments: object) -> None:
        raise Halted("interrupted (SIGINT)", "trustsweep sweep --resume 'my runs/a'", 130)

    monkeypatch.setattr("trustsweep.distributed.sweep.job.sweep", left)
    code, _, err = trustsweep("sweep", "quick", "--data", phantoms, "--out", tmp_path / "run")
    assert code == 130
    line = "trustsweep: interrupted (SIGINT). Resume with: trustsweep sweep --resume 'my runs/a'"
    assert err.strip() == line


def test_an_unknown_method_to_train_is_refused(trustsweep, phantoms):
    refused(trustsweep("train", "unett", "--data", phantoms), "did you mean 'unet'")


def test_a_dry_run_prints_the_resolved_study_and_the_resources(trustsweep, phantoms, tmp_path):
    code, out, _ = trustsweep(
        "sweep", "evidential", "--data", phantoms, "--out", tmp_path / "run", "--dry-run",
        "--trials", 5, "--set", "space.learning_rate=1e-3",
    )  # fmt: skip
    assert code == 0
    assert re.search(r"trials: 5\b", out)
    assert "learning_rate: 0.001" in out
    assert "slot(s)" in out
    assert not (tmp_path / "run").exists()


def test_list_names_everything_registered(trustsweep):
    code, out, _ = trustsweep("list")
    assert code == 0
    for word in ("evidential-unet", "phantoms", "gaussian-blur", "segpgd", "uncertain", "vacuity"):
        assert word in out
    assert "clean.dice" not in trustsweep("list", "layouts")[1]
    refused(trustsweep("list", "layuots"), "did you mean 'layouts'")


@pytest.mark.parametrize("command", ["prepare", "sweep", "train", "report", "list"])
def test_help_teaches_with_an_example_where_there_are_arguments(trustsweep, command):
    code, out, _ = trustsweep(command, "--help")
    assert code == 0
    if command in ("prepare", "sweep", "train"):
        assert f"trustsweep {command}" in out.split("Usage:")[1].split("\n", 1)[1]


def test_list_tells_all_of_one_layout_or_corruption(trustsweep):
    code, out, _ = trustsweep("list", "uci-heart")
    assert code == 0
    assert "Options (--set): target=binary" in out
    assert "CC BY 4.0" in out
    assert "N ~ Poisson" in trustsweep("list", "shot-noise")[1]
    refused(trustsweep("list", "uci-haert"), "did you mean 'uci-heart'")
    # A method and its default network bear one name.
    both = trustsweep("list", "unet")[1]
    assert "As a method: " in both
    assert "As a network: " in both


def test_folds_and_skipped_files_are_said(trustsweep, folder, tmp_path):
    (folder / "Train Set" / "Images" / "covid_3.png").write_bytes(b"")
    out = tmp_path / "folds"
    code, text, _ = prepare(trustsweep, folder, "--skip-bad", "--set", "folds=3", "--out", out)
    assert code == 0
    assert "cases that cannot be used, left out: 1; skipped.csv says why" in text
    assert f"{out}: 3 data sets (fold-0, fold-1, fold-2)" in text
    refused(trustsweep("sweep", "quick", "--data", out), "name one of them: fold-0")
