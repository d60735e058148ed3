"""Implementations from outside of this repository: files named by the user, installed packages.

A plug-in file registers what it has, by the registries' own `register`; an installed package names
it by an entry point of the registry's group, such as ``trustsweep.methods``. Files are loaded
when a registry is first asked, in every process of a sweep: `use` leaves their paths in the
environment, which Ray hands on to the workers.
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from trustsweep.data_pipelines.errors import UserError

#: The environment variable that lists plug-in files, joined as in PATH.
PLUGINS = "TRUSTSWEEP_PLUGINS"


def files() -> list[Path]:
    """The plug-in files of this process, in the order in which they are loaded."""
    return [Path(name) for name in os.environ.get(PLUGINS, "").split(os.pathsep) if name]


def use(paths: Iterable[Path]) -> None:
    """Load plug-in files now, and in the processes that this one starts; each once.

    Raises `UserError` for a file that is missing or cannot be loaded; names file and line.
    """
    for path in paths:
        if not path.is_file():
            raise UserError(f"--plugin {path}: no such file. Name a Python file.")
    named = [*files(), *(path.resolve() for path in paths)]
    os.environ[PLUGINS] = os.pathsep.join(dict.fromkeys(map(str, named)))
    load()


def load() -> None:
    """Load the files of `files` that are not loaded yet. Raises as `use`."""
    for path in files():
        _load(path)


def digest() -> str:
    """Digest of the code beside our own that results may depend on; "" without any.

    That is the plug-in files' contents, in whatever order they are named, and the versions of the
    installed packages that offer anything.
    """
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files()]
    parts += _packages()
    return hashlib.sha256("\0".join(sorted(parts)).encode()).hexdigest()[:12] if parts else ""


@cache
def entry_points(group: str) -> dict[str, str]:
    """Name to "module:attribute" of what installed packages offer for a registry.

    Raises `UserError` where two packages offer one name.
    """
    targets: dict[str, str] = {}
    for point in _points().select(group=group):
        if targets.setdefault(point.name, point.value) != point.value:
            raise UserError(
                f"{group}: two installed packages offer {point.name!r}: {targets[point.name]} and "
                f"{point.value}. Remove one of them."
            )
    return targets


@cache
def _points() -> Any:
    """Those of all installed packages, whose files are read for it; `select` has one type in
    Python 3.11 and another from 3.12 on."""
    return metadata.entry_points()


@cache
def _packages() -> list[str]:
    """ "name==version" of every installed package with an entry point of ours.

    Packages that only add sections of the report are left out, as no result depends on them.
    """
    packages = {
        f"{package.name}=={package.version}"
        for package in metadata.distributions()
        if any(
            point.group.startswith("trustsweep.") and point.group != "trustsweep.sections"
            for point in package.entry_points
        )
    }
    return sorted(packages)


def _load(path: Path) -> None:
    name = f"trustsweep_plugin_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None:
        if loaded.__file__ != str(path):
            raise UserError(f"--plugin {path}: another file of that name is loaded. Rename one.")
        return
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--plugin {path}: no Python file. Name one that ends with .py.")
    module = module_from_spec(spec)
    # Before it runs: it asks registries, which load plug-ins.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        del sys.modules[name]
        raise UserError(f"--plugin {path}: {error}") from error
    except Exception as error:
        del sys.modules[name]
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
        line = getattr(error, "lineno", line) if isinstance(error, SyntaxError) else line
        raise UserError(
            f"--plugin {path}, line {line}: {type(error).__name__}: {error}. Mend it there."
        ) from error
