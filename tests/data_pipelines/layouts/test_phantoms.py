"""Generated X-rays: repeatable, lazy, varied, and consistent in what they say of themselves."""

from itertools import islice

import numpy as np
import pytest
from scipy import ndimage

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.phantoms import Phantoms
from trustsweep.data_pipelines.layouts.phantoms.thorax import SITES
from trustsweep.data_pipelines.sample import Sample


def _samples(count: int, **options) -> list[Sample]:
    layout = Phantoms(None, **{"size": 32, "seed": 0, "count": count, **options})
    return [sample for case in layout.cases() for sample in layout.load(case)]


@pytest.fixture(scope="module")
def many() -> list[Sample]:
    return _samples(360)


def _same(one: Sample, other: Sample) -> bool:
    return (
        np.array_equal(one.image, other.image)
        and np.array_equal(one.mask, other.mask)
        and np.array_equal(one.tabular, other.tabular, equal_nan=True)
        and (one.sample_id, one.patient_id, one.groups)
        == (other.sample_id, other.patient_id, other.groups)
    )


def test_a_sample_depends_on_seed_and_index_alone():
    few, more = _samples(4), _samples(9)
    assert all(_same(a, b) for a, b in zip(few, more, strict=False))
    last = Phantoms(None, size=32, seed=0, count=9)
    assert _same(next(last.load(list(last.cases())[8])), more[8])
    assert not any(_same(a, b) for a, b in zip(few, _samples(4, seed=1), strict=True))


def test_enumeration_is_lazy():
    # A list of a thousand million cases would not fit into any memory.
    layout = Phantoms(None, size=32, seed=0, count=10**9)
    assert [case.index for case in islice(layout.cases(), 3)] == [0, 1, 2]


def test_arrays_have_the_stated_shapes_and_types(many):
    for sample in many[:50]:
        assert sample.image.shape == sample.mask.shape == (1, 32, 32)
        assert sample.image.dtype == sample.mask.dtype == np.uint8
        assert set(np.unique(sample.mask)) <= {0, 1}
        assert sample.tabular.shape == (len(Phantoms.tabular),)
        assert sample.tabular.dtype == np.float32


def test_label_boxes_and_mask_agree(many):
    for sample in many:
        assert sample.label == int(sample.mask.any())
        covered = np.zeros_like(sample.mask[0])
        for x0, y0, x1, y1 in sample.boxes.xyxy.astype(int):
            assert 0 <= x0 < x1 <= 32
            assert 0 <= y0 < y1 <= 32
            covered[y0:y1, x0:x1] = 1
            # Tight: every side touches the mask.
            box = sample.mask[0, y0:y1, x0:x1]
            assert box[0].any()
            assert box[-1].any()
            assert box[:, 0].any()
            assert box[:, -1].any()
        assert (covered >= sample.mask[0]).all()
        assert (sample.boxes.classes == 0).all()


def test_population_is_as_described(many):
    healthy = np.mean([sample.label == 0 for sample in many])
    assert 0.10 < healthy < 0.25
    assert {sample.site for sample in many} == set(SITES)
    patients = {}
    for sample in many:
        patients.setdefault(sample.patient_id, []).append(sample)
    assert 1 < len(many) / len(patients) < 2
    assert max(map(len, patients.values())) == 3
    for theirs in patients.values():
        assert len({(s.site, s.groups["sex"], s.groups["age"]) for s in theirs}) == 1
    assert all(18 <= sample.groups["age"] <= 95 for sample in many)


def test_infections_are_visible(many):
    """Inside the mask the film is brighter than in a ring around it, in most of the images."""
    brighter = []
    for sample in many:
        inside = sample.mask[0].astype(bool)
        if inside.any():
            ring = ndimage.binary_dilation(inside, iterations=3) & ~inside
            brighter.append(sample.image[0][inside].mean() > sample.image[0][ring].mean())
    assert np.mean(brighter) > 0.6


def test_sites_differ_in_noise(many):
    def noise(site: str) -> float:
        # Below the diaphragm the anatomy is smooth.
        rows = [sample.image[0, -6:, 4:12] for sample in many if sample.site == site]
        return float(np.mean([np.abs(np.diff(row.astype(float), axis=1)).mean() for row in rows]))

    assert noise("digital") < noise("computed") < noise("portable")


def test_vital_signs_carry_some_of_the_label_and_have_gaps(many):
    values = np.stack([sample.tabular for sample in many])
    labels = np.array([sample.label for sample in many])
    missing = np.isnan(values).mean()
    assert 0.06 < missing < 0.14
    shift = np.nanmean(values[labels == 1], axis=0) - np.nanmean(values[labels == 0], axis=0)
    deviation = np.nanstd(values, axis=0)
    names = dict(zip((f.name for f in Phantoms.tabular), shift / deviation, strict=True))
    assert names.pop("spo2") < -0.4
    assert all(value > 0.3 for value in names.values())
    assert np.nanmax(values[:, 1]) <= 100


def test_a_phantom_looks_alike_at_any_size():
    small, large = (_samples(6, size=size) for size in (32, 128))
    for one, other in zip(small, large, strict=True):
        assert one.label == other.label
        coarse = other.image[0].reshape(32, 4, 32, 4).mean(axis=(1, 3))
        assert np.corrcoef(coarse.ravel(), one.image[0].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("count", [0, -3, 1.5, "many", True])
def test_refuses_an_impossible_count(count):
    with pytest.raises(UserError, match="count is a whole number above 0"):
        Phantoms(None, size=32, seed=0, count=count)


def test_refuses_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"reads no folder.*--layout"):
        Phantoms(tmp_path, size=32, seed=0)


def test_targets_show_the_same_images_and_lie_within_each_other():
    infection, classes, regions = (
        _samples(40, target=target) for target in ("infection", "classes", "regions")
    )
    for one, several, nested in zip(infection, classes, regions, strict=True):
        assert np.array_equal(one.image, several.image)
        assert np.array_equal(one.image, nested.image)
        assert np.array_equal(one.mask, several.mask == 2)
        lung, infected, core = nested.mask
        assert np.array_equal(lung, several.mask[0] > 0)
        assert np.array_equal(infected, one.mask[0])
        assert (core <= infected).all()
        assert (infected <= lung).all()
        assert several.label is None
        assert nested.label == one.label
    cores = [nested.mask[2].sum() / max(nested.mask[1].sum(), 1) for nested in regions]
    assert 0.2 < np.mean(cores) < 0.8


def test_refuses_an_unknown_target():
    with pytest.raises(UserError, match="target: one of infection, classes, regions"):
        Phantoms(None, size=32, seed=0, target="lungs")
