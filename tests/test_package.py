"""The import name: one for all folders, in a wheel, in a checkout and in a job's working folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePath

import pytest

import trustsweep

ROOT = Path(__file__).parents[1]
FOLDERS = {"data_pipelines", "trainables", "search_spaces", "distributed", "cluster"}


def python(code: str, where: Path, *path: Path) -> str:
    """What code prints in a process of its own, which must succeed; `path` comes first."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}, timeout=120,
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


def test_a_checkout_needs_no_installation(checkout):
    """As the working directory of a job: the folder is where Python starts."""
    code = "import trustsweep.search_spaces.study as s; print(s.__file__, len(s.shipped_studies()))"
    file, count = python(code, checkout).split()
    assert Path(file) == checkout / "search_spaces" / "study.py"
    assert int(count) > 0
