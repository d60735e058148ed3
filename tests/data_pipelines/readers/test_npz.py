"""NumPy archives: NumPy's own arrays, and nothing that claims more than it is."""

import io
import resource
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as arrays

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.npz import MAX_BYTES, npz_shapes, read_npz, stream_npz

DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (50, 8, 8), np.uint8)

DTYPES = (
    arrays.boolean_dtypes()
    | arrays.integer_dtypes(endianness="?")
    | arrays.floating_dtypes(endianness="?")
    | arrays.unicode_string_dtypes(endianness="?", max_len=4)
)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(array=arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, max_side=5, min_side=0)))
def test_arrays_come_back(tmp_path, save, array):
    save(tmp_path / "a.npz", first=array, second=array.copy(order="F"))
    found = read_npz(tmp_path / "a.npz", ["second", "first"])
    assert list(found) == ["second", "first"]
    for name in found:
        assert found[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], array)
    assert npz_shapes(tmp_path / "a.npz") == {"first": array.shape, "second": array.shape}


def test_real_archives_are_read_whole_and_in_pieces(real_data):
    path = real_data / "medmnist" / "breastmnist.npz"
    with np.load(path, allow_pickle=False) as oracle:
        expected = dict(oracle)
    found = read_npz(path, expected)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    pieces = list(stream_npz(path, "train_images", rows=100))
    assert max(map(len, pieces)) == 100
    assert np.array_equal(np.concatenate(pieces), expected["train_images"])


@pytest.mark.parametrize("rows", [1, 7, 50, 1000])
def test_pieces_add_up(tmp_path, rows):
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES)
    pieces = list(stream_npz(tmp_path / "a.npz", "images", rows=rows))
    assert all(len(piece) == rows for piece in pieces[:-1])
    assert np.array_equal(np.concatenate(pieces), IMAGES)


def test_columns_first_is_not_streamed(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.asfortranarray(IMAGES))
    with pytest.raises(BadFile, match="not stored row by row"):
        next(stream_npz(tmp_path / "a.npz", "images"))


def test_missing_names_come_with_the_nearest(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=IMAGES, train_labels=IMAGES[:, 0, 0])
    with pytest.raises(BadFile, match="no array 'train_image', did you mean 'train_images'"):
        read_npz(tmp_path / "a.npz", ["train_labels", "train_image"])


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.array([{"a": 1}, None], dtype=object), "Python objects"),
        (np.zeros(3, [("a", "u1"), ("b", "f4")]), "type"),
        (np.zeros(3, "M8[s]"), "type datetime64"),
    ],
)
def test_objects_and_records_are_refused(tmp_path, array, what):
    np.savez(tmp_path / "a.npz", odd=array)
    with pytest.raises(BadFile, match=f"array 'odd' holds {what}"):
        read_npz(tmp_path / "a.npz", ["odd"])


def test_pickles_are_never_loaded(tmp_path):
    """An object whose loading would leave a trace."""

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "a.npz", odd=np.array([Trap()], dtype=object))
    with pytest.raises(BadFile):
        read_npz(tmp_path / "a.npz", ["odd"])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kept", [0.1, 0.6, 0.99])
def test_truncated_archives_are_named(tmp_path, save, kept):
    save(tmp_path / "a.npz", images=IMAGES)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(BadFile, match="archive, or damaged") as raised:
        read_npz(tmp_path / "a.npz", ["images"])
    assert raised.value.path == tmp_path / "a.npz"


@pytest.mark.parametrize("read", [read_npz, lambda path, names: list(stream_npz(path, names[0]))])
def test_a_flipped_bit_is_noticed(tmp_path, read):
    np.savez(tmp_path / "a.npz", images=IMAGES)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(bytes(content))
    with pytest.raises(BadFile, match="Bad CRC-32"):
        read(tmp_path / "a.npz", ["images"])


def _member(header: str, data: bytes) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((10,), "not as long as its shape says"),
        ((8,), None),
        ((7,), "not as long as its shape says"),
        ((2**40, 2**40), "not as long as its shape says"),
        ((-8,), "not as long as its shape says"),
        ((-2, -4), "not as long as its shape says"),
        ("x", "no usable header"),
    ],
)
def test_headers_are_held_to_their_member(tmp_path, shape, reason):
    path = tmp_path / "a.npz"
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape!r}, }}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", _member(header, bytes(8)))
    if reason is None:
        assert np.array_equal(read_npz(path, ["a"])["a"], np.zeros(8))
        return
    with pytest.raises(BadFile, match=reason):
        read_npz(path, ["a"])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_of_others_are_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("a.npy", b"anything")
    with pytest.raises(BadFile, match="packed in a way that NumPy does not write"):
        read_npz(tmp_path / "a.npz", ["a"])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_come_twice_are_refused(tmp_path):
    content = io.BytesIO()
    np.save(content, IMAGES)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", content.getvalue())
    with pytest.raises(BadFile, match="several arrays 'a'"):
        read_npz(tmp_path / "a.npz", ["a"])


def _claiming(path, size: int) -> None:
    """An archive whose directory and whose header both claim `size` bytes for a few."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}"
    member = _member(header, bytes(1000))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", member)
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", size + len(member) - 1000)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("size", "reason"), [(2**32 - 100_000, "truncated|damaged"), (2**31, "truncated|damaged")]
)
def test_false_sizes_reserve_nothing(tmp_path, size, reason):
    path = tmp_path / "bomb.npz"
    _claiming(path, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadFile, match=reason):
        read_npz(path, ["a"])
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2**26


def test_several_huge_members_are_refused_unpacked(tmp_path):
    """Each below the limit, together above it; their real content is a thousandth."""
    path = tmp_path / "bomb.npz"
    size = 2**20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "ab":
            header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}"
            archive.writestr(f"{name}.npy", _member(header, bytes(size)))
    content = bytearray(path.read_bytes())
    entry = -1
    for _ in range(2):
        entry = content.find(b"PK\x01\x02", entry + 1)
        content[entry + 24 : entry + 28] = struct.pack("<I", MAX_BYTES // 2 + 1)
    path.write_bytes(bytes(content))
    with pytest.raises(BadFile, match="more than 4,294,967,296 bytes; not unpacked"):
        read_npz(path, ["a", "b"])


def test_foreign_and_missing_files_are_named(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "single.npy", IMAGES)
    for name, reason in (
        ("text.npz", "no .npz archive"),
        ("single.npy", "no .npz archive"),
        ("none.npz", "no such file"),
    ):
        with pytest.raises(BadFile, match=reason):
            read_npz(tmp_path / name, ["a"])
