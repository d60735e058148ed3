"""Choosing slices: all, every n-th, or as many with tumour as without."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.preprocess.slices import choose

TUMOUR = st.lists(st.booleans(), min_size=1, max_size=40).map(np.array)


@given(TUMOUR, st.integers(0, 9))
def test_every_tumour_slice_is_kept_with_as_many_others(tumour, seed):
    kept = choose("tumour", tumour, seed=seed, key="ab12")
    assert kept == sorted(set(kept))
    count = int(tumour.sum())
    assert tumour[kept].sum() == count
    assert (~tumour[kept]).sum() == min(max(count, 1), int((~tumour).sum()))
    assert kept
    assert kept == choose("tumour", tumour, seed=seed, key="ab12")


@given(TUMOUR, st.integers(1, 50))
def test_every_nth_starts_with_the_first(tumour, step):
    kept = choose(step, tumour, seed=0, key="0")
    assert kept == [i for i in range(len(tumour)) if i % step == 0]
    assert choose("all", tumour, seed=0, key="0") == choose(1, tumour, seed=0, key="0")


@pytest.mark.parametrize("change", [{"seed": 1}, {"key": "ff"}])
def test_the_draw_depends_on_the_seed_and_the_scan(change):
    tumour = np.arange(60) < 15
    given = {"seed": 0, "key": "ab"}
    assert choose("tumour", tumour, **given) != choose("tumour", tumour, **{**given, **change})
