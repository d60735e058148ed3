"""Miniatures: small folders in each publisher's layout, built once a session."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "layouts"


def build_miniature(name: str, folder: Path) -> Path:
    """What `miniature_<name>.py` writes below `folder`: the path to hand to `prepare`."""
    path = HERE / f"miniature_{name.replace('-', '_')}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(folder)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory) -> Callable[[str], Path]:
    """A layout's name to its miniature. Shared: copy it before changing it."""
    built: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in built:
            built[name] = build_miniature(name, tmp_path_factory.mktemp(name))
        return built[name]

    return of
