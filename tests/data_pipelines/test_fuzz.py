"""Damaged files: every reader reads them or refuses them, and nothing else ever happens.

Files are cut, flipped, zeroed, repeated within and given each other's beginnings. The draws are
seeded, so that a failure names the mutation that shows it again.
"""

import gzip
import io
import logging
import resource
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.random import Generator, default_rng

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.dicom import read_dicom
from trustsweep.data_pipelines.readers.images import read_colour, read_grey, read_mask
from trustsweep.data_pipelines.readers.nifti import read_nifti
from trustsweep.data_pipelines.readers.npz import npz_shapes, read_npz, stream_npz
from trustsweep.data_pipelines.readers.tables import ColumnKind, read_table, stream_table
from trustsweep.data_pipelines.readers.xml import read_xml

#: Reads of each seed file.
ROUNDS = 100
#: No read may take longer on a busy machine, nor let the process grow by more.
SECONDS, GROWTH = 10, 2**30

#: What other formats begin with.
HEADERS = {
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1\0\x08\0\0\0\0",
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
    "tiff": b"II*\0\x08\0\0\0",
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\2\xff",
    "zip": b"PK\3\4\x14\0\0\0\x08\0",
    "nifti": (348).to_bytes(4, "little"),
    "dicom": bytes(128) + b"DICM\2\0\0\0UL\4\0",
    "xml": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]>",
    "utf-16": b"\xff\xfe",
    "npy": b"\x93NUMPY\1\0v\0",
}


def _cut(content: bytes, draw: Generator) -> bytes:
    return content[: draw.integers(len(content))]


def _flip(content: bytes, draw: Generator) -> bytes:
    """Half of the time within the first bytes, where the headers are."""
    changed = bytearray(content)
    reach = len(changed) if draw.random() < 0.5 else min(len(changed), 512)
    for place in draw.integers(reach, size=draw.integers(1, 9)):
        changed[place] ^= int(draw.integers(1, 256))
    return bytes(changed)


def _swap_header(content: bytes, draw: Generator) -> bytes:
    header = HEADERS[draw.choice(sorted(HEADERS))]
    return header + content[len(header) :]


def _zero(content: bytes, draw: Generator) -> bytes:
    start, end = sorted(draw.integers(len(content) + 1, size=2))
    return content[:start] + bytes(int(end - start)) + content[end:]


def _repeat(content: bytes, draw: Generator) -> bytes:
    start, end = sorted(draw.integers(len(content) + 1, size=2))
    return content[:end] + content[start:end] + content[end:]


MUTATIONS = (_cut, _flip, _swap_header, _zero, _repeat)


def _image_mask(path: Path) -> None:
    read_mask(path, (256, 256), {value: value % 3 for value in range(256)})


def _colour(path: Path) -> None:
    assert read_colour(path).ndim == 3


def _deep(path: Path) -> None:
    assert np.isfinite(read_grey(path, deep=True)).all()


def _npz(path: Path) -> None:
    for name in npz_shapes(path):
        sum(len(piece) for piece in stream_npz(path, name))
    read_npz(path, ["images", "labels"])


COLUMNS = {
    "Image Index": ColumnKind.TEXT,
    "Patient ID": ColumnKind.INTEGER,
    "Patient Age": ColumnKind.NUMBER,
}


def _table(path: Path) -> None:
    read_table(path, COLUMNS, unique="Image Index", private=["Patient ID"])


def _stream(path: Path) -> None:
    for batch in stream_table(path, COLUMNS, batch_rows=100):
        assert batch.num_rows <= 100


def _volume(path: Path) -> None:
    volume = read_nifti(path)
    assert np.isfinite(volume.values).all()
    assert min(volume.spacing) > 0


def _frame(path: Path) -> None:
    pixels = read_dicom(path).pixels
    assert 0 <= pixels.min() <= pixels.max() <= 1


def _attack(content: bytes, read: Callable[[Path], None], folder: Path, seed: int) -> Counter[str]:
    """What became of `ROUNDS` mutants."""
    outcomes: Counter[str] = Counter()
    path = folder / "mutant"
    for index in range(ROUNDS):
        draw = default_rng((seed, index))
        mutation = MUTATIONS[index % len(MUTATIONS)]
        path.write_bytes(mutation(content, draw))
        started = time.monotonic()
        message = None
        try:
            read(path)
        except UserError as error:
            message = str(error)
        except Exception as error:
            raise AssertionError(f"{mutation.__name__} {(seed, index)}: {error!r}") from error
        outcomes["read" if message is None else "refused"] += 1
        assert message is None or str(path) in message
        took = time.monotonic() - started
        assert took < SECONDS, f"{mutation.__name__} {(seed, index)} took {took:.1f} s"
    return outcomes


@pytest.fixture
def attack(tmp_path, caplog, capfd):
    """Attacks a reader and holds it to silence and to memory."""

    def run(content: bytes, read: Callable[[Path], None], seed: int) -> None:
        (tmp_path / "whole").write_bytes(content)
        read(tmp_path / "whole")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with (
            caplog.at_level(logging.WARNING),
            warnings.catch_warnings(record=True, action="always") as spilt,
        ):
            outcomes = _attack(content, read, tmp_path, seed)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert outcomes["refused"] > ROUNDS / 5, outcomes
        assert not spilt, [str(warning.message) for warning in spilt]
        assert not caplog.records
        assert capfd.readouterr() == ("", "")
        assert grown < GROWTH

    return run


REAL_IMAGES = {
    "png": "covid19_cxr_qata_layout/QaTa-COV19-v2/Train Set/Images/*.png",
    "jpeg": "BCCD_Dataset/BCCD/JPEGImages/*.jpg",
    "tiff": "lgg-mri-segmentation/kaggle_3m/*/*_1.tif",
    "mask": "lgg-mri-segmentation/kaggle_3m/*/*_12_mask.tif",
}


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("png", read_grey),
        ("png", _deep),
        ("jpeg", _colour),
        ("tiff", _colour),
        ("mask", _image_mask),
        ("mask", _deep),
    ],
)
def test_images(real_data, attack, kind, read):
    file = min(real_data.glob(REAL_IMAGES[kind]))
    attack(file.read_bytes(), read, seed=1)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_numpy_archives(real_data, attack, packing):
    """The beginning of a real one, so that the damage meets headers as often as pixels."""
    with np.load(real_data / "medmnist" / "breastmnist.npz", allow_pickle=False) as real:
        arrays = {"images": real["train_images"][:20], "labels": real["train_labels"][:20]}
    content = io.BytesIO()
    save = np.savez if packing == zipfile.ZIP_STORED else np.savez_compressed
    save(content, **arrays)
    attack(content.getvalue(), _npz, seed=2)


@pytest.mark.parametrize("read", [_table, _stream])
@pytest.mark.parametrize("pack", [bytes, partial(gzip.compress, mtime=0)])
def test_tables(real_data, attack, read, pack):
    content = (real_data / "nih_chestxray14" / "Data_Entry_2017_v2020.csv").read_bytes()
    attack(pack(content), read, seed=3)


def test_annotations(real_data, attack):
    file = min((real_data / "BCCD_Dataset").rglob("*.xml"))
    attack(file.read_bytes(), read_xml, seed=4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("pack", [bytes, partial(gzip.compress, mtime=0)])
def test_volumes(attack, dtype, pack):
    values = default_rng(5).integers(0, 100, (12, 10, 8)).astype(dtype)
    image = nibabel.Nifti1Image(values, np.diag([-1, 1, 2.5, 1]))
    attack(pack(image.to_bytes()), _volume, seed=5)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPGExtended.dcm",
        "image_dfl.dcm",
        "examples_overlay.dcm",
    ],
)
def test_dicom_frames(attack, name):
    from pydicom.data import get_testdata_file

    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    attack(Path(path).read_bytes(), _frame, seed=6)


def test_a_mutant_of_every_kind_is_tried():
    """Each changes a file, and all get the same share of the rounds."""
    assert ROUNDS % len(MUTATIONS) == 0
    content = bytes(range(256)) * 4
    for mutation in MUTATIONS:
        assert any(mutation(content, default_rng(seed)) != content for seed in range(5))


def test_other_failures_would_be_noticed(tmp_path):
    def broken(path: Path) -> None:
        raise KeyError(path)

    def refusing(path: Path) -> None:
        raise BadFile(path, "always")

    with pytest.raises(AssertionError, match="KeyError"):
        _attack(b"content", broken, tmp_path, seed=0)
    assert _attack(b"content", refusing, tmp_path, seed=0) == {"refused": ROUNDS}
