"""The import name: one for all folders, in a wheel, in a checkout and in a job's working folder."""

import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path, PurePath

import pytest

import trustsweep

ROOT = Path(__file__).parents[1]
TRAIN = (
    *("train", "linear", "--data", "dots", "--set", "epochs=1", "--set", "label_smoothing=0.1"),
    *("--set", "evaluation.epsilons=[0]", "--set", "evaluation.corruptions=[]"),
)
FOLDERS = {"data_pipelines", "trainables", "search_spaces", "distributed", "cluster"}


def python(code: str, where: Path, *path: Path, seconds: float = 120) -> str:
    """What code prints in a process of its own, which must succeed; `path` comes first."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packed, as building a wheel leaves files beside its source."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in (*FOLDERS, "trustsweep"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77", reason="builds a wheel without the network")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, checkout], check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.parametrize("name", trustsweep.__all__)
def test_public_names_are_there(name):
    assert getattr(trustsweep, name) is not None


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys, trustsweep; dir(trustsweep); "
        "print([m for m in sys.modules if m.startswith('trustsweep.')], 'torch' in sys.modules)"
    )
    assert python(code, ROOT) == "[] False"


def test_the_wheel_has_one_name_and_every_file_below_it(wheel):
    names = {PurePath(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert {name.parts[0] for name in names if ".dist-info" not in name.parts[0]} == {"trustsweep"}
    files = {file.relative_to(ROOT) for folder in FOLDERS for file in (ROOT / folder).rglob("*.*")}
    wanted = {f for f in files if f.suffix not in {".pyc", ".md"} and (ROOT / f).is_file()}
    assert {"trustsweep" / file for file in wanted} <= names


def test_the_wheel_runs_away_from_the_checkout_and_beside_packages_of_the_folders_names(
    wheel, tmp_path
):
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    for name in FOLDERS:
        (installed / name).mkdir()
        (installed / name / "__init__.py").write_text("raise ImportError('of somebody else')")
    code = (
        "import sys; sys.argv = ['trustsweep', 'list', 'methods']; import trustsweep; "
        "from trustsweep.distributed.cli.app import main; print(trustsweep.__path__); main()"
    )
    shown = python(code, tmp_path, installed)
    assert shown.splitlines()[0] == str([str(installed / "trustsweep")])
    assert "evidential-unet" in shown


def write_my_package(folder: Path) -> Path:
    """A package that offers a model (docs/examples/own_model.py), a layout, a metric, a section."""
    own = (ROOT / "docs" / "examples" / "own_model.py").read_text().partition("trustsweep.METHODS")
    (folder / "my_package" / "last").mkdir(parents=True)
    for name, text in {
        "pyproject.toml": """
            [build-system]
            requires = ["setuptools"]
            build-backend = "setuptools.build_meta"

            [project]
            name = "my-package"
            version = "1.0"

            [project.entry-points]
            "trustsweep.methods" = { linear = "my_package.models:Linear" }
            "trustsweep.layouts" = { dots = "my_package.data:Dots" }
            "trustsweep.metrics" = { certainty = "my_package.certainty:INFO" }
            "trustsweep.sections" = { last = "my_package.last:Last" }

            [tool.setuptools]
            packages = ["my_package", "my_package.last"]
            package-data = { "my_package.last" = ["*.j2"] }
            """,
        "my_package/__init__.py": "",
        "my_package/models.py": own[0],
        "my_package/data.py": """
            import numpy as np

            import trustsweep


            class Dots(trustsweep.Layout[int]):
                \"""Noise, every other image with a bright dot in the middle.\"""

                name, licence, citation = "dots", "none", "none"
                tasks, classes = (trustsweep.TaskName.CLASSIFICATION,), ("none", "dot")

                def cases(self):
                    yield from range(40)

                def load(self, case):
                    size = self.size
                    image = np.random.default_rng(case).random((1, size, size), np.float32) / 2
                    image[:, size // 2] += case % 2 / 2
                    who = {"sample_id": f"d{case}", "patient_id": f"p{case}", "site": "a"}
                    yield trustsweep.Sample(**who, image=image, label=case % 2)

                def source_digest(self):
                    return "0" * 64
            """,
        "my_package/certainty.py": """
            from trustsweep import MetricInfo, SumState, TaskName


            class Certainty(SumState):
                names = ("certainty",)
                fields = {"total": (), "count": ()}

                def update(self, prediction, batch):
                    top = prediction.probability.amax(dim=1).double()
                    self.add(total=top.sum(), count=len(top))

                def compute(self):
                    return {"certainty": float(self.sums["total"] / self.sums["count"])}


            STATES = {TaskName.CLASSIFICATION: Certainty}
            INFO = MetricInfo("certainty", None, 0, 1, "", "Mean top probability", STATES)
            """,
        "my_package/last/__init__.py": """
            import trustsweep


            class Last(trustsweep.Section):
                \"""How certain the trials are.\"""

                def gather(self, run):
                    return [trial.metrics["clean.certainty"] for trial in run.completed] or None
            """,
        "my_package/last/page.html.j2": "<section>Certain: {{ data[0] | number }}</section>",
    }.items():
        (folder / name).write_text(textwrap.dedent(text).lstrip())
    return folder


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages as pip installs them; the rest comes from this environment."""
    target = tmp_path_factory.mktemp("site")
    mine = write_my_package(tmp_path_factory.mktemp("mine"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    for source in (wheel, mine):
        subprocess.run(
            [*command, "--no-build-isolation", "--target", target, source],
            check=True, capture_output=True,
        )  # fmt: skip
    return target


def command_line(installed: Path, where: Path, *words: object, seconds: float = 120) -> str:
    """What `python -m trustsweep` prints, which must succeed; nothing of the checkout is loaded."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = {['trustsweep', *map(str, words)]!r}\n"
        "try:\n    runpy.run_module('trustsweep', run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        "    files = [getattr(m, '__file__', None) or '' for m in [*sys.modules.values()]]\n"
        f"    ours, libraries = {str(ROOT) + os.sep!r}, sys.prefix + {os.sep!r}\n"
        "    ours = [f for f in files if f.startswith(ours) and not f.startswith(libraries)]\n"
        "    assert not ours, ours\n"
        "    import trustsweep; assert trustsweep.__path__ == "
        f"[{str(installed / 'trustsweep')!r}], trustsweep.__path__\n"
    )
    return python(code, where, installed, seconds=seconds)


def test_an_installed_package_adds_its_own_without_a_checkout(installed, tmp_path):
    listed = command_line(installed, tmp_path, "list")
    for name, meaning in {
        "linear": "A linear classifier; cross-entropy with smoothed labels.",
        "dots": "Noise, every other image with a bright dot in the middle.",
        "certainty": "Mean top probability",
        "last": "How certain the trials are.",
    }.items():
        (line,) = [line for line in listed.splitlines() if line.split()[:1] == [name]]
        assert meaning in line
    command_line(installed, tmp_path, "prepare", "--layout", "dots", "--size", 8, "--out", "dots")
    shown = command_line(installed, tmp_path, *TRAIN, "--dry-run")
    assert "label_smoothing: 0.1" in shown
    assert "- clean.balanced_accuracy\n- clean.ece\n" in shown


@pytest.mark.slow
def test_what_an_installed_package_adds_trains_and_is_reported(installed, tmp_path):
    command_line(installed, tmp_path, "prepare", "--layout", "dots", "--size", 8, "--out", "dots")
    command_line(installed, tmp_path, *TRAIN, "--out", "run", seconds=400)
    header = (tmp_path / "run" / "trials.csv").read_text().partition("\n")[0]
    assert "clean.certainty" in header
    assert "<section>Certain: 0." in (tmp_path / "run" / "report.html").read_text()


def test_a_checkout_needs_no_installation(checkout):
    """As the working directory of a job: the folder is where Python starts."""
    code = "import trustsweep.search_spaces.study as s; print(s.__file__, len(s.shipped_studies()))"
    file, count = python(code, checkout).split()
    assert Path(file) == checkout / "search_spaces" / "study.py"
    assert int(count) > 0
