import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.streams import Mode, choose

GB = 10**9


@pytest.mark.parametrize(
    ("needed", "store", "device", "mode"),
    [
        (1 * GB, 8 * GB, 0, Mode.MATERIALISED),
        (5 * GB, 8 * GB, 0, Mode.STREAMED),
        (1 * GB, 8 * GB, 80 * GB, Mode.RESIDENT),
        (3 * GB, 8 * GB, 80 * GB, Mode.MATERIALISED),  # more than 2 GiB
        (1 * GB, 8 * GB, 3 * GB, Mode.MATERIALISED),  # more than a quarter of the GPU
        (5 * GB, 8 * GB, 80 * GB, Mode.STREAMED),
        (0, 0, 0, Mode.MATERIALISED),
    ],
)
def test_auto_takes_the_fastest_mode_that_has_room(needed, store, device, mode):
    choice = choose("auto", needed, store=store, device=device)
    assert choice.mode is mode
    if mode is not Mode.STREAMED:
        assert choice.needed <= choice.limit


@given(
    wanted=st.sampled_from(list(Mode)),
    needed=st.integers(0, 10**13),
    store=st.integers(0, 10**12),
    device=st.integers(0, 10**11),
)
def test_a_mode_that_was_asked_for_is_taken_and_what_is_beyond_its_room_is_said(
    wanted, needed, store, device
):
    choice = choose(wanted, needed, store=store, device=device)
    assert choice.mode is wanted
    assert ("over the limit" in str(choice)) == (
        needed > choice.limit and wanted is not Mode.STREAMED
    )
    assert "\n" not in str(choice)


def test_the_choice_says_its_sizes_in_short_units():
    assert str(choose("auto", 1_234_000_000, store=6.8e9, device=0)) == (
        "1.23 GB materialised in the object store (limit 3.4 GB)"
    )
    assert str(choose("auto", 999_600, store=1e9, device=0)).startswith("1 MB materialised")
    assert str(choose("streamed", 640 * GB, store=6.8e9, device=0)) == (
        "640 GB streamed from storage (object store: 3.4 GB)"
    )


def test_reading_without_ray_does_not_load_it():
    code = "import sys, trustsweep.data_pipelines.streams; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
