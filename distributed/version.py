"""The version of the code, which is part of a trial's name."""

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("trustsweep")
    except PackageNotFoundError:
        # Run from a job's working directory on a node where it is not installed.
        return "0+uninstalled"


VERSION = _version()
