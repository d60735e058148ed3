"""Shared fixtures: where the real data lies, and what stands in when it is absent."""

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; skips where this checkout does not stand beside it."""
    if not REAL_DATA.is_dir():
        pytest.skip("real data are not redistributable and do not lie beside this checkout")
    return REAL_DATA
