"""Volumes: every axis points where it says, masks stay in place, intensities follow numpy."""

import itertools
import sys

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt2axcodes

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.preprocess.registration import to_template
from trustsweep.data_pipelines.preprocess.volumes import VolumeRecipe, apply
from trustsweep.data_pipelines.readers.nifti import Volume

SHAPE = (14, 18, 10)
VALUES = np.random.default_rng(0).random(SHAPE, np.float32) + 0.5
WHOLE = VolumeRecipe(size=(10, 18, 14), crop=False)


def _volume(values, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> Volume:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Volume(np.asarray(values, np.float32), spacing, affine)


def _ball(centre, radius, shape=(40, 40, 40), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    """A smooth ball that depends on millimetres alone, whatever the grid."""
    index = np.indices(shape).astype(float)
    place = [index[a] * spacing[a] + origin[a] - centre[a] for a in range(3)]
    return np.clip(radius - np.sqrt(sum(p**2 for p in place)), 0, None).astype(np.float32)


def _dice(one, other) -> float:
    return 2 * np.logical_and(one, other).sum() / (one.sum() + other.sum())


def test_slices_are_axial_and_lie_as_radiologists_look_at_them():
    """Voxels count towards the patient's right, front and top (RAS)."""
    for axis, (place, end) in enumerate([(2, 0), (1, 0), (0, 9)]):
        corner = [0, 0, 0]
        corner[axis] = SHAPE[axis] - 1
        values = np.zeros(SHAPE)
        values[tuple(slice(None) if a != axis else corner[axis] for a in range(3))] = 1
        values[0, 0, 0] += 0.1  # Contrast: all else is one value.
        recipe = VolumeRecipe(size=(10, 18, 14), crop=False, clip=(0, 100))
        image = apply(recipe, {"t1": _volume(values)}).image[0]
        assert image.shape == (10, 18, 14)
        assert np.take(image, end, axis=place).mean() > 0.9
        assert image.mean() < 0.2


def test_nothing_but_the_scale_changes_at_the_same_size():
    image = apply(WHOLE, {"t1": _volume(VALUES)}).image[0]
    low, high = np.percentile(VALUES, (0.5, 99.5))
    expected = np.clip((VALUES - low) / (high - low), 0, 1)
    np.testing.assert_allclose(image, expected[::-1, ::-1].transpose(2, 1, 0), atol=1e-6)


@pytest.mark.parametrize("axes", itertools.permutations(range(3)))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_a_scan_comes_out_alike_however_it_was_stored(axes, flips):
    turn = np.array(list(zip(axes, flips, strict=True)), float)
    straight = _volume(VALUES, (1.0, 2.0, 3.0), (5.0, -3.0, 2.0))
    stored = apply_orientation(VALUES, turn)
    affine = straight.affine @ inv_ornt_aff(turn, SHAPE)
    spacing = tuple(float(s) for s in nibabel.affines.voxel_sizes(affine))
    assert ornt2axcodes(nibabel.io_orientation(affine)) is not None
    mask = (stored > 1).astype(np.uint8)
    recipe = VolumeRecipe(size=(20, 20, 20), spacing=(2.0, 2.0, 2.0))
    expected = apply(recipe, {"t1": straight}, (VALUES > 1).astype(np.uint8))
    found = apply(recipe, {"t1": Volume(stored, spacing, affine)}, mask)
    np.testing.assert_allclose(found.image, expected.image, atol=2e-3)
    assert (found.mask != expected.mask).mean() < 0.002


def test_percentiles_leave_out_the_background():
    values = np.zeros(SHAPE, np.float32)
    values[4:10, 4:12, 3:8] = np.random.default_rng(1).normal(100, 10, (6, 8, 5))
    image = apply(WHOLE, {"t1": _volume(values)}).image
    brain = values[values != 0]
    low, high = np.percentile(brain, (0.5, 99.5))
    expected = np.clip((brain - low) / (high - low), 0, 1)
    assert image.dtype == np.float32
    assert image.sum() == pytest.approx(expected.sum(), rel=1e-4)
    assert (image > 0).sum() == (expected > 0).sum()


def test_each_sequence_has_its_own_scale():
    one = apply(WHOLE, {"t1": _volume(VALUES)}).image
    two = apply(WHOLE, {"t1": _volume(VALUES), "t2": _volume(1000 * VALUES - 7)}).image
    np.testing.assert_allclose(two[0], one[0], atol=1e-6)
    np.testing.assert_allclose(two[1], one[0], atol=1e-4)


@pytest.mark.parametrize("value", [0, 3])
def test_a_sequence_without_contrast_becomes_zero_and_is_noted(value):
    flat = np.full(SHAPE, value, np.float32)
    prepared = apply(WHOLE, {"t1": _volume(VALUES), "flair": _volume(flat)})
    assert not prepared.image[1].any()
    assert prepared.image[0].any()
    assert prepared.notes == ("images have a flair of one value alone; set to 0",)
    assert not apply(VolumeRecipe(size=(8, 8, 8)), {"t1": _volume(flat)}).image.any()


def test_resampling_halves_what_is_twice_as_wide_and_keeps_a_ramp():
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], (20, 20, 20)) + 1
    recipe = VolumeRecipe(size=(10, 10, 10), spacing=(2.0, 2.0, 2.0), crop=False, clip=(0, 100))
    image = apply(recipe, {"t1": _volume(ramp)}).image[0]
    row = image[5, 5]
    np.testing.assert_allclose(row, np.linspace(row[0], row[-1], 10), atol=1e-5)
    assert row[0] > row[-1]


def test_the_crop_is_the_box_of_all_sequences_with_the_mask():
    first, second, mask = (np.zeros(SHAPE, np.float32) for _ in range(3))
    first[3:6, 4:9, 2:4] = VALUES[3:6, 4:9, 2:4]
    second[5:11, 6:10, 3:8] = VALUES[5:11, 6:10, 3:8]
    mask[5, 6, 3] = 1
    recipe = VolumeRecipe(size=(6, 6, 8))
    prepared = apply(recipe, {"a": _volume(first), "b": _volume(second)}, mask.astype(np.uint8))
    # The box is x 3-10, y 4-9, z 2-7: 8 x 6 x 6 voxels, so that nothing is scaled.
    expected = (first[3:11, 4:10, 2:8] > 0)[::-1, ::-1].transpose(2, 1, 0)
    assert ((prepared.image[0] > 0) <= expected).all()
    assert (prepared.image[0] > 0).sum() > 0.9 * expected.sum()
    assert np.argwhere(prepared.mask[0]).tolist() == [[3 - 2, 5 - (6 - 4), 7 - (5 - 3)]]


def test_the_margin_stops_at_the_edge_of_the_scan():
    values = np.zeros(SHAPE, np.float32)
    values[0:4, 5:9, 3:7] = VALUES[0:4, 5:9, 3:7]
    image = apply(VolumeRecipe(size=(8, 8, 8), margin=2), {"t1": _volume(values)}).image[0]
    # 6 x 8 x 8 voxels are kept, two of them air on every side but one; x is padded to 8.
    occupied = np.argwhere(image > 0)
    assert occupied.min(axis=0).tolist() == [2, 2, 3]
    assert occupied.max(axis=0).tolist() == [5, 5, 6]


@pytest.mark.parametrize("size", [(20, 20, 20), (16, 32, 48), (60, 50, 64)])
def test_a_ball_stays_a_ball_in_the_middle(size):
    ball = _ball((20, 20, 20), 14)
    prepared = apply(VolumeRecipe(size=size), {"t1": _volume(ball)}, (ball > 5).astype(np.uint8))
    assert prepared.image.shape == prepared.mask.shape == (1, *size)
    inside = np.argwhere(prepared.mask[0])
    extent = inside.max(axis=0) - inside.min(axis=0) + 1
    assert extent.max() - extent.min() <= 1
    np.testing.assert_allclose(inside.mean(axis=0), (np.array(size) - 1) / 2, atol=0.6)


@pytest.mark.parametrize("size", [(20, 20, 20), (64, 64, 64)])
def test_a_mask_lies_where_its_image_does(size):
    ball = _ball((17, 22, 19), 16) + 1
    recipe = VolumeRecipe(size=size, clip=(0, 100))
    prepared = apply(recipe, {"t1": _volume(ball)}, (ball > 5).astype(np.uint8))
    assert _dice(prepared.image[0] > 0.25, prepared.mask[0] == 1) > 0.93


def test_mask_values_are_kept():
    mask = np.random.default_rng(3).choice(np.array([0, 1, 2, 4], np.uint8), SHAPE)
    prepared = apply(VolumeRecipe(size=(7, 11, 23)), {"t1": _volume(VALUES)}, mask)
    assert prepared.mask.dtype == np.uint8
    assert set(np.unique(prepared.mask)) == {0, 1, 2, 4}


def test_depth_is_kept_or_scaled_on_its_own_where_asked():
    kept = apply(VolumeRecipe(size=(None, 7, 7)), {"t1": _volume(VALUES)}).image
    assert kept.shape == (1, 10, 7, 7)
    assert (kept[0].max(axis=(1, 2)) > 0).all()
    stretched = apply(
        VolumeRecipe(size=(30, 7, 7), stretch_depth=True), {"t1": _volume(VALUES)}
    ).image
    assert (stretched[0].max(axis=(1, 2)) > 0).all()
    padded = apply(VolumeRecipe(size=(30, 7, 7)), {"t1": _volume(VALUES)}).image
    assert (padded[0].max(axis=(1, 2)) > 0).sum() == 4  # 10 x 7 / 18, rounded


def test_shrinking_averages():
    board = (np.indices((32, 32, 32)).sum(axis=0) % 2 + 1).astype(np.float32)
    image = apply(VolumeRecipe(size=(8, 8, 8), clip=(0, 100)), {"t1": _volume(board)}).image
    np.testing.assert_allclose(image, 0.5, atol=1e-5)


def test_a_sequence_on_another_grid_is_put_where_it_belongs():
    centre, radius = (20.0, 18.0, 22.0), 12
    fine = _volume(_ball(centre, radius))
    shape, spacing, origin = (24, 30, 20), (2.0, 1.5, 2.0), (-3.0, -2.0, 1.0)
    coarse = _volume(_ball(centre, radius, shape, spacing, origin), spacing, origin)
    recipe = VolumeRecipe(size=(40, 40, 40), crop=False)
    image = apply(recipe, {"flair": fine, "t1": coarse}).image
    assert np.abs(image[0] - image[1]).max() < 0.15
    assert _dice(image[0] > 0.3, image[1] > 0.3) > 0.97


def test_a_mask_on_another_grid_is_refused():
    with pytest.raises(ValueError, match="the mask has"):
        apply(WHOLE, {"t1": _volume(VALUES)}, np.zeros((3, 3, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 8, 8)}, "at least 1"),
        ({"size": (None, 8, 0)}, "at least 1"),
        ({"spacing": (1.0, -1.0, 1.0)}, "width in mm above 0"),
        ({"spacing": (1.0, float("nan"), 1.0)}, "width in mm above 0"),
        ({"margin": -1}, "0 or more"),
        ({"clip": (99, 1)}, "two percentiles"),
        ({"registration": "elastic"}, "'rigid' or 'affine'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        VolumeRecipe(**{"size": (8, 8, 8), **change})


def test_a_template_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such template"):
        VolumeRecipe(size=(8, 8, 8), template=tmp_path / "mni.nii")


def test_a_turned_and_shifted_scan_registers_back(tmp_path):
    """Two ellipsoids of different brightness, turned by 8 degrees and shifted by some mm."""
    pytest.importorskip("SimpleITK")
    template, moving = _head(0, (0, 0, 0)), _head(8, (3, -4, 2))
    nibabel.save(nibabel.Nifti1Image(template.values, template.affine), tmp_path / "template.nii")
    truth, drawn = template.values > 150, (moving.values > 150).astype(np.uint8)
    size = tuple(reversed(template.values.shape))
    straight = VolumeRecipe(size=size, crop=False)
    before = apply(straight, {"t1": moving}, drawn)
    seen = apply(straight, {"t1": template}, truth.astype(np.uint8))
    for model in ("rigid", "affine"):
        recipe = VolumeRecipe(
            size=size, crop=False, template=tmp_path / "template.nii", registration=model
        )
        after = apply(recipe, {"t1": moving, "t2": moving}, drawn)
        assert _dice(before.mask, seen.mask) < 0.75
        assert _dice(after.mask, seen.mask) > 0.9
        # Interpolated edges move the lower percentile, and so the scale a little: correlation.
        found, missed = (
            1 - np.corrcoef(p.image[0].ravel(), seen.image[0].ravel())[0, 1]
            for p in (after, before)
        )
        assert found < missed / 3
        np.testing.assert_array_equal(after.image[0], after.image[1])
    again = apply(recipe, {"t1": moving, "t2": moving}, drawn)
    np.testing.assert_array_equal(again.image, after.image)


def test_an_affine_fit_follows_size_and_stays_sane_on_coarse_grids(tmp_path):
    """Steps of a fixed length once blew a coarse scan up by a third."""
    pytest.importorskip("SimpleITK")
    for shape, width, scale in (((40, 44, 36), 2.0, 1.15), ((20, 22, 18), 4.0, 1.0)):
        template = _head(0, (0, 0, 0), shape=shape, width=width)
        moving = _head(3, (4, -5, 3), scale=scale, shape=shape, width=width)
        path = tmp_path / f"{width}.nii"
        nibabel.save(nibabel.Nifti1Image(template.values, template.affine), path)
        likeness = {}
        for model in ("rigid", "affine"):
            fitted = to_template(path, {"t1": moving}, None, model=model)[0]["t1"]
            both = (fitted.values.ravel(), template.values.ravel())
            likeness[model] = np.corrcoef(*both)[0, 1]
        assert min(likeness.values()) > 0.9 or scale != 1
        assert 1 - likeness["affine"] < 0.5 * (1 - likeness["rigid"]) or scale == 1


def test_what_cannot_be_registered_is_refused(tmp_path):
    pytest.importorskip("SimpleITK")
    template = _head(0, (0, 0, 0))
    nibabel.save(nibabel.Nifti1Image(template.values, template.affine), tmp_path / "template.nii")
    recipe = VolumeRecipe(size=(8, 8, 8), template=tmp_path / "template.nii")
    with pytest.raises(ValueError, match="cannot be registered to the template"):
        apply(recipe, {"t1": _volume(np.zeros((20, 20, 20)))})
    sheared = template.affine.copy()
    sheared[0, 1] = 0.5
    with pytest.raises(ValueError, match="sheared"):
        apply(recipe, {"t1": Volume(template.values, template.spacing, sheared)})


def test_registration_without_simpleitk_says_what_to_install(tmp_path, monkeypatch):
    template = _head(0, (0, 0, 0))
    nibabel.save(nibabel.Nifti1Image(template.values, template.affine), tmp_path / "template.nii")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(UserError, match=r"pip install 'trustsweep\[registration\]'"):
        apply(VolumeRecipe(size=(8, 8, 8), template=tmp_path / "template.nii"), {"t1": template})


def _head(degrees, shift, *, scale=1.0, shape=(40, 44, 36), width=2.0) -> Volume:
    """An ellipsoid with a brighter one (above 150) off its middle, 1 / scale as large."""
    spacing = (width,) * 3
    origin = tuple(-(n - 1) * s / 2 for n, s in zip(shape, spacing, strict=True))
    place = np.indices(shape).reshape(3, -1) * width + np.array(origin)[:, None]
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    x, y, z = scale * turn @ (place - np.array(shift, float)[:, None])
    head = (x / 26) ** 2 + (y / 34) ** 2 + (z / 28) ** 2 < 1
    tumour = ((x - 10) / 7) ** 2 + ((y - 12) / 10) ** 2 + ((z - 6) / 8) ** 2 < 1
    values = ((60 + x + y / 2) * head + 150.0 * tumour).reshape(shape)
    return _volume(values, spacing, origin)
