"""NIfTI volumes: nibabel's own values in RAS+ order, and a reason for every other file."""

import gzip
import resource
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.nifti import MAX_VOXELS, Volume, read_labels, read_nifti

DRAW = np.random.default_rng(0)
VALUES = DRAW.integers(0, 100, (5, 6, 7))
AFFINE = np.array([[1.5, 0, 0, -10], [0, 2, 0, 20], [0, 0, 3, 5], [0, 0, 0, 1]])


def _save(path, values, affine=AFFINE, kind=nibabel.Nifti1Image, **header):
    image = kind(values, affine)
    for name, value in header.items():
        image.header[name] = value
    path.write_bytes(image.to_bytes())
    return path


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_every_type_comes_back(tmp_path, dtype, kind):
    order = ">" if dtype.startswith(">") else "<"
    header = kind.header_class(endianness=order)
    header.set_data_dtype(dtype)
    image = kind(VALUES.astype(dtype), AFFINE, header)
    path = tmp_path / "a.nii"
    path.write_bytes(image.to_bytes())
    volume = read_nifti(path)
    assert volume.values.dtype == np.float32
    assert np.array_equal(volume.values, VALUES)
    assert volume.spacing == pytest.approx((1.5, 2, 3))
    assert np.allclose(volume.affine, AFFINE)


def test_gzipped_files_are_told_by_their_content(tmp_path):
    path = _save(tmp_path / "a.nii", VALUES.astype(np.int16))
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(read_nifti(path).values, VALUES)


@pytest.mark.parametrize(("slope", "intercept"), [(2, 0), (0.5, -1024), (-1, 10)])
def test_slope_and_intercept_are_applied(tmp_path, slope, intercept):
    path = tmp_path / "a.nii.gz"
    image = nibabel.Nifti1Image(VALUES.astype(np.int16), AFFINE)
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, path)
    assert np.allclose(read_nifti(path).values, VALUES * slope + intercept)
    assert np.allclose(read_nifti(path).values, nibabel.load(path).get_fdata())


@pytest.mark.parametrize(
    "codes",
    [
        "".join(side[turn] for side, turn in zip(axes, turns, strict=True))
        for axes in permutations(("LR", "PA", "IS"))
        for turns in product((0, 1), repeat=3)
    ],
)
def test_all_48_orientations_become_ras(tmp_path, codes):
    """Stored in any orientation, the same anatomy gives the same array and the same affine."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = nibabel.orientations.apply_orientation(VALUES.astype(np.int16), turn)
    affine = AFFINE @ inv_ornt_aff(turn, VALUES.shape)
    volume = read_nifti(_save(tmp_path / "a.nii", turned, affine))
    assert np.array_equal(volume.values, VALUES)
    assert np.allclose(volume.affine, AFFINE)
    assert volume.spacing == pytest.approx((1.5, 2, 3))


def test_oblique_volumes_are_turned_to_the_nearest_axes_alone(tmp_path):
    angle = 0.3
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    path = _save(tmp_path / "a.nii", VALUES.astype(np.int16), turn @ AFFINE)
    oracle = nibabel.as_closest_canonical(nibabel.load(path))
    volume = read_nifti(path)
    assert np.array_equal(volume.values, oracle.get_fdata())
    assert np.allclose(volume.affine, oracle.affine)


@pytest.mark.parametrize(("code", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_units_become_millimetres(tmp_path, code, factor):
    volume = read_nifti(_save(tmp_path / "a.nii", VALUES.astype(np.int16), xyzt_units=code))
    assert volume.spacing == pytest.approx((1.5 * factor, 2 * factor, 3 * factor))


def test_an_axis_of_length_one_is_dropped(tmp_path):
    path = _save(tmp_path / "a.nii", VALUES[..., None].astype(np.int16))
    assert read_nifti(path).values.shape == VALUES.shape
    assert read_nifti(path, dims=4).values.shape == (*VALUES.shape, 1)


def test_several_volumes_come_where_they_are_asked_for(tmp_path):
    values = DRAW.integers(0, 9, (4, 3, 2, 5)).astype(np.int16)
    path = _save(tmp_path / "a.nii", values, np.diag([-1, 1, 1, 1]))
    assert np.array_equal(read_nifti(path, dims=4).values, values[::-1])
    with pytest.raises(BadFile, match="4 x 3 x 2 x 5 voxels where 3 axes are expected"):
        read_nifti(path)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2)])
def test_other_shapes_are_named(tmp_path, shape):
    with pytest.raises(BadFile, match="where 3 axes are expected"):
        read_nifti(_save(tmp_path / "a.nii", np.zeros(shape, np.int16)))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_values_that_are_none_are_counted(tmp_path, odd):
    values = VALUES.astype(np.float32)
    values[0, :3, 0] = odd
    with pytest.raises(BadFile, match="3 voxels are NaN or infinite"):
        read_nifti(_save(tmp_path / "a.nii", values))


def test_values_beyond_float32_are_counted(tmp_path):
    with pytest.raises(BadFile, match="210 voxels are NaN or infinite"):
        read_nifti(_save(tmp_path / "a.nii", np.full(VALUES.shape, 1e300)))


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_colours_and_complex_numbers_are_refused(tmp_path, dtype):
    with pytest.raises(BadFile, match="only integers and floats are read"):
        read_nifti(_save(tmp_path / "a.nii", np.zeros((3, 3, 3), dtype)))


@pytest.mark.parametrize(
    ("place", "content", "reason"),
    [
        (344, b"ni1\0", "no single-file NIfTI"),
        (0, b"\0\0\0\0", "no NIfTI file"),
        (70, b"\xff\x7f", "no known data type"),
        (108, b"\0\0\0\0", "voxels cannot start at byte 0"),
        (108, np.float32(np.nan).tobytes(), "voxels cannot start at byte nan"),
        (108, np.float32(1e12).tobytes(), "voxels cannot start"),
        (42, np.int16([-4]).tobytes(), "3 axes are expected"),
        (40, np.int16([99]).tobytes(), "no usable shape"),
        (280, np.float32(np.nan).tobytes(), "its affine cannot be used"),
        (112, np.float32(np.inf).tobytes(), "slope or intercept is no number"),
        (116, np.float32(np.nan).tobytes(), "slope or intercept is no number"),
        (123, b"\x05", "voxel sizes are no lengths"),
        (312, bytes(16), "its affine cannot be used"),
    ],
)
def test_headers_that_make_no_sense_are_named(tmp_path, place, content, reason):
    path = _save(tmp_path / "a.nii", VALUES.astype(np.int16))
    whole = bytearray(path.read_bytes())
    whole[place : place + len(content)] = content
    path.write_bytes(bytes(whole))
    with pytest.raises(BadFile, match=reason) as raised:
        read_nifti(path)
    assert raised.value.path == path


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("kept", [0.001, 0.3, 0.9, 0.999])
def test_truncated_files_are_named(tmp_path, pack, kept):
    path = tmp_path / "a.nii"
    image = nibabel.Nifti1Image(DRAW.integers(0, 255, (20, 20, 20), np.uint8), AFFINE)
    content = pack(image.to_bytes())
    path.write_bytes(content[: max(1, int(len(content) * kept))])
    with pytest.raises(BadFile, match=r"truncated|no NIfTI file"):
        read_nifti(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_that_go_on_are_named(tmp_path, pack):
    path = tmp_path / "a.nii"
    whole = nibabel.Nifti1Image(VALUES.astype(np.int16), AFFINE).to_bytes()
    path.write_bytes(pack(whole + b"\0"))
    with pytest.raises(BadFile, match="goes on behind the voxels"):
        read_nifti(path)


def test_a_wrong_checksum_is_noticed(tmp_path):
    content = bytearray(
        gzip.compress(nibabel.Nifti1Image(VALUES.astype(np.int16), AFFINE).to_bytes())
    )
    content[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(bytes(content))
    with pytest.raises(BadFile, match="damaged or truncated"):
        read_nifti(tmp_path / "a.nii.gz")


def test_a_bomb_is_not_inflated(tmp_path):
    """2 GiB of zeros behind a header that promises 210 voxels."""
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(nibabel.Nifti1Image(VALUES.astype(np.int16), AFFINE).to_bytes())
    part = gzip.compress(bytes(2**24))
    with path.open("ab") as file:
        for _ in range(128):
            file.write(part)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadFile, match="goes on behind the voxels"):
        read_nifti(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2**26


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("shape", "reason"), [((2000, 2000, 2000), "more than 268,435,456"), ((600,) * 3, "truncated")]
)
def test_headers_that_promise_too_much_reserve_nothing(tmp_path, pack, shape, reason):
    assert 600**3 < MAX_VOXELS < 2000**3
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.float64)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_sform(AFFINE, 1)
    path = tmp_path / "a.nii"
    path.write_bytes(pack(header.binaryblock + bytes(4 + 10_000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadFile, match=reason):
        read_nifti(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2**26


REFERENCE = Volume(VALUES.astype(np.float32), (1.5, 2.0, 3.0), AFFINE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_labels_come_as_stored(tmp_path, dtype):
    labels = DRAW.choice([0, 1, 2, 4], VALUES.shape)
    found = read_labels(
        _save(tmp_path / "a.nii", labels.astype(dtype)), REFERENCE, values=(0, 1, 2, 4)
    )
    assert found.dtype == np.uint8
    assert np.array_equal(found, labels)


def test_empty_labels_are_labels(tmp_path):
    path = _save(tmp_path / "a.nii", np.zeros(VALUES.shape, np.uint8))
    assert not read_labels(path, REFERENCE, values=(0, 1)).any()


def test_labels_in_another_orientation_are_brought_along(tmp_path):
    labels = (VALUES > 50).astype(np.uint8)
    flipped = AFFINE @ np.diag([-1, 1, 1, 1])
    flipped[:3, 3] += AFFINE[:3, 0] * (VALUES.shape[0] - 1)
    path = _save(tmp_path / "a.nii", labels[::-1], flipped)
    assert np.array_equal(read_labels(path, REFERENCE, values=(0, 1)), labels)


@pytest.mark.parametrize(
    ("values", "reason"), [((0, 3), "labels 3 are unknown. Known: 0, 1"), ((0.5,), "labels 0.5")]
)
def test_unknown_labels_are_named(tmp_path, values, reason):
    labels = np.resize(np.array(values, np.float32), VALUES.shape)
    with pytest.raises(BadFile, match=reason):
        read_labels(_save(tmp_path / "a.nii", labels), REFERENCE, values=(1, 0))


def test_labels_of_another_shape_are_named(tmp_path):
    path = _save(tmp_path / "a.nii", np.zeros((5, 6, 8), np.uint8))
    with pytest.raises(BadFile, match="5 x 6 x 8 voxels, their image 5 x 6 x 7"):
        read_labels(path, REFERENCE, values=(0,))


@pytest.mark.parametrize(("shift", "accepted"), [(0.01, True), (1.5, False)])
def test_labels_beside_their_image_are_named(tmp_path, shift, accepted):
    affine = AFFINE.copy()
    affine[0, 3] += shift
    path = _save(tmp_path / "a.nii", np.zeros(VALUES.shape, np.uint8), affine)
    if accepted:
        assert read_labels(path, REFERENCE, values=(0,)).shape == VALUES.shape
        return
    with pytest.raises(BadFile, match="up to 1 voxels beside their image"):
        read_labels(path, REFERENCE, values=(0,))
