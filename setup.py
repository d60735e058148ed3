"""The packages of the wheel; everything else stands in pyproject.toml.

The five folders stay at the top of the repository, and are packages of `trustsweep` once they are
installed: their own names would meet those of others (dask has a `distributed`).
"""

from setuptools import find_namespace_packages, setup

FOLDERS = ("data_pipelines", "trainables", "search_spaces", "distributed", "cluster")

setup(
    packages=[
        "trustsweep",
        *(
            f"trustsweep.{package}"
            for folder in FOLDERS
            for package in find_namespace_packages(include=[folder, f"{folder}.*"])
        ),
    ],
    package_dir={f"trustsweep.{folder}": folder for folder in FOLDERS},
)
