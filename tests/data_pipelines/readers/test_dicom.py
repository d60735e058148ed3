"""DICOM frames: pydicom's own values as a viewer shows them, and nothing that names anyone."""

import logging
import resource
import subprocess
import sys
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut, apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.codestreams import frame_size, run_length_size
from trustsweep.data_pipelines.readers.dicom import MAX_BYTES, DicomImage, read_dicom

DRAW = np.random.default_rng(0)
SECRET = "Doe^Secret"


def _dataset(pixels, *, stored=None, syntax=ExplicitVRLittleEndian, **tags) -> Dataset:
    """A secondary capture that holds `pixels` and everything that must not come out."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.StudyDate = SECRET, SECRET, "20200131"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = pixels.dtype.itemsize * 8
    data.BitsStored = stored or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data["PixelData"].VR = "OW" if data.BitsAllocated > 8 else "OB"
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    return data


def _save(path, data) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


def _values(low, high, dtype):
    return DRAW.integers(low, high, (6, 9), endpoint=True).astype(dtype)


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("u1", 8), ("u2", 16), ("u2", 12), ("i2", 16), ("i2", 12), ("u4", 32), ("i4", 20)],
)
def test_without_a_window_the_stored_range_is_shown(tmp_path, syntax, dtype, stored):
    low, high = (
        (0, 2**stored - 1) if dtype[0] == "u" else (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1)
    )
    values = _values(low, high, dtype)
    values[0, :2] = low, high
    image = read_dicom(_save(tmp_path / "a.dcm", _dataset(values, stored=stored, syntax=syntax)))
    assert image.pixels.dtype == np.float32
    assert np.allclose(image.pixels, (values.astype(float) - low) / (high - low), atol=1e-6)
    assert image.pixels[0, 0] == 0
    assert image.pixels[0, 1] == 1


def test_bits_that_are_not_stored_count_for_nothing(tmp_path):
    """Old files keep overlays there."""
    values = _values(0, 4095, "u2")
    with_overlay = values | (DRAW.integers(0, 16, values.shape).astype("u2") << 12)
    plain = read_dicom(_save(tmp_path / "a.dcm", _dataset(values, stored=12)))
    marked = read_dicom(_save(tmp_path / "b.dcm", _dataset(with_overlay, stored=12)))
    assert np.array_equal(plain.pixels, marked.pixels)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (600, 1500), (1024, 2048), (10, 2)])
@pytest.mark.parametrize("slope", [1, 0.5, 3])
def test_windows_agree_with_pydicom(tmp_path, function, centre, width, slope):
    values = _values(0, 4095, "u2")
    data = _dataset(
        values,
        stored=12,
        WindowCenter=centre,
        WindowWidth=width,
        VOILUTFunction=function,
        RescaleSlope=slope,
        RescaleIntercept=-1024,
    )
    expected = apply_windowing(values * float(slope) - 1024, data)
    low, high = -1024, 4095 * slope - 1024
    image = read_dicom(_save(tmp_path / "a.dcm", data))
    assert np.allclose(image.pixels, (expected - low) / (high - low), atol=1e-5)


def test_the_first_of_several_windows_is_used(tmp_path):
    values = _values(0, 255, "u1")
    several = _dataset(values, WindowCenter=[100, 20], WindowWidth=[50, 10])
    one = _dataset(values, WindowCenter=100, WindowWidth=50)
    first = read_dicom(_save(tmp_path / "a.dcm", several))
    assert np.array_equal(first.pixels, read_dicom(_save(tmp_path / "b.dcm", one)).pixels)


def test_a_window_of_one_is_a_threshold(tmp_path):
    values = _values(0, 255, "u1")
    data = _dataset(values, WindowCenter=100, WindowWidth=1)
    pixels = read_dicom(_save(tmp_path / "a.dcm", data)).pixels
    assert np.array_equal(pixels, values > 99.5)


def test_negative_slopes_keep_the_range(tmp_path):
    values = _values(0, 255, "u1")
    data = _dataset(values, RescaleSlope=-1, RescaleIntercept=255)
    pixels = read_dicom(_save(tmp_path / "a.dcm", data)).pixels
    assert np.allclose(pixels, 1 - values / 255, atol=1e-6)


def test_monochrome1_is_inverted(tmp_path):
    values = _values(0, 4095, "u2")
    window = {"stored": 12, "WindowCenter": 2000, "WindowWidth": 3000}
    dark = _dataset(values, **window)
    bright = _dataset(values, **window, PhotometricInterpretation="MONOCHROME1")
    pixels = read_dicom(_save(tmp_path / "a.dcm", dark)).pixels
    inverted = read_dicom(_save(tmp_path / "b.dcm", bright)).pixels
    assert np.allclose(pixels + inverted, 1, atol=1e-6)


def _table(size: int, bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [size, 0, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = np.sort(DRAW.integers(0, 2**bits, size)).astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    item.ModalityLUTType = "US"
    return Sequence([item])


@pytest.mark.parametrize("bits", [12, 16])
def test_tables_of_grey_agree_with_pydicom(tmp_path, bits):
    values = _values(0, 255, "u1")
    data = _dataset(values, VOILUTSequence=_table(256, bits))
    path = _save(tmp_path / "a.dcm", data)
    expected = apply_voi_lut(values, pydicom.dcmread(path)) / (2**bits - 1)
    assert np.allclose(read_dicom(path).pixels, expected, atol=1e-6)


def test_modality_tables_come_before_the_window(tmp_path):
    values = _values(0, 255, "u1")
    tables = _table(256, 16)
    data = _dataset(values, ModalityLUTSequence=tables, WindowCenter=30000, WindowWidth=20000)
    mapped = np.frombuffer(tables[0].LUTData, "<u2").astype(float)[values]
    expected = np.clip((mapped - 29999.5) / 19999 + 0.5, 0, 1)
    assert np.allclose(read_dicom(_save(tmp_path / "a.dcm", data)).pixels, expected, atol=1e-5)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("name", ["MR_small.dcm"])
def test_lossless_compression_changes_nothing(tmp_path, syntax, name):
    """The same image, as pydicom's authors stored it in each way."""
    twins = {
        RLELossless: "MR_small_RLE.dcm",
        JPEG2000Lossless: "MR_small_jp2klossless.dcm",
        JPEGLSLossless: "MR_small_jpeg_ls_lossless.dcm",
    }
    plain = read_dicom(_published(name))
    packed = read_dicom(_published(twins[syntax]))
    assert np.array_equal(plain.pixels, packed.pixels)
    assert plain.spacing == packed.spacing == (0.3125, 0.3125)


def _published(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path)


@pytest.mark.parametrize(
    ("tags", "field", "value"),
    [
        ({"PixelSpacing": [0.2, 0.3]}, "spacing", (0.2, 0.3)),
        ({"ImagerPixelSpacing": [0.1, 0.1]}, "spacing", (0.1, 0.1)),
        ({"PixelSpacing": [0.2, 0.3], "ImagerPixelSpacing": [1, 1]}, "spacing", (0.2, 0.3)),
        ({"PixelSpacing": [0, 0.3]}, "spacing", None),
        ({}, "spacing", None),
        ({"ViewPosition": "PA"}, "view", "PA"),
        ({"ViewPosition": ""}, "view", None),
        ({"ViewPosition": "seen by dr. who"}, "view", None),
        ({"Modality": "DX"}, "modality", "DX"),
        ({"PatientSex": "F"}, "sex", "female"),
        ({"PatientSex": "M"}, "sex", "male"),
        ({"PatientSex": "O"}, "sex", "other"),
        ({"PatientSex": "?"}, "sex", None),
        ({"PatientAge": "045Y"}, "age", 45),
        ({"PatientAge": "018M"}, "age", 1.5),
        ({"PatientAge": "old"}, "age", None),
        ({}, "age", None),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
def test_what_comes_beside_the_pixels(tmp_path, tags, field, value):
    path = _save(tmp_path / "a.dcm", _dataset(_values(0, 255, "u1"), **tags))
    found = getattr(read_dicom(path), field)
    assert found == (pytest.approx(value) if isinstance(value, float | tuple) else value)


def test_nothing_else_comes_out(tmp_path, caplog, capfd):
    """Neither in the result, nor in a message about a file with odd values, nor in a log."""
    assert {f.name for f in fields(DicomImage)} == {
        *("pixels", "spacing", "view", "modality", "sex", "age")
    }
    data = _dataset(_values(0, 255, "u1"), PatientBirthDate="19600101")
    path = _save(tmp_path / "a.dcm", data)
    content = path.read_bytes()
    odd = tmp_path / "b.dcm"
    # Values that pydicom warns of, and numbers that it cannot read, quoting them.
    odd.write_bytes(content.replace(b"19600101", b"Secret!!"))
    broken = tmp_path / "c.dcm"
    data.WindowCenter = "1234567"
    data.WindowWidth = "10"
    _save(broken, data)
    broken.write_bytes(broken.read_bytes().replace(b"1234567", b"Secret7"))
    with caplog.at_level(logging.DEBUG):
        for file in (path, odd):
            assert "Secret" not in repr(read_dicom(file))
        with pytest.raises(BadFile) as raised:
            read_dicom(broken)
    assert "Secret" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"NumberOfFrames": 3}, "3 frames where one is expected"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a colour image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a colour image"),
        ({"Rows": 60_000, "Columns": 60_000}, "more than 64,000,000 pixels; not decoded"),
        ({"NumberOfFrames": 2_000_000}, "more than 64,000,000 pixels; not decoded"),
        ({"Rows": 0}, "without rows or columns"),
        ({"Rows": 7}, "its pixels cannot be decoded"),
        ({"BitsStored": 12}, "12 bits stored of 8"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "12 bits stored of 12"),
        ({"BitsStored": 7, "HighBit": 7}, "7 bits stored of 8"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "its rescale slope"),
        ({"WindowCenter": 10}, "its window makes no sense"),
        ({"WindowCenter": 10, "WindowWidth": 0}, "its window makes no sense"),
        ({"WindowCenter": 10, "WindowWidth": -5}, "its window makes no sense"),
        ({"WindowCenter": 10, "WindowWidth": 5, "VOILUTFunction": "CUBIC"}, "its window makes"),
        ({"FloatPixelData": b"\0\0\0\0"}, "floating-point pixels"),
    ],
)
def test_what_cannot_be_shown_is_named(tmp_path, tags, reason):
    path = _save(tmp_path / "a.dcm", _dataset(_values(0, 7, "u1"), **tags))
    with pytest.raises(BadFile, match=reason) as raised:
        read_dicom(path)
    assert raised.value.path == path


@pytest.mark.parametrize("keyword", ["Rows", "BitsStored", "PhotometricInterpretation"])
def test_missing_tags_are_named(tmp_path, keyword):
    data = _dataset(_values(0, 255, "u1"))
    delattr(data, keyword)
    with pytest.raises(BadFile, match=f"lacks {keyword}"):
        read_dicom(_save(tmp_path / "a.dcm", data))


def test_files_without_an_image_are_named(tmp_path):
    data = _dataset(_values(0, 255, "u1"))
    del data.PixelData
    with pytest.raises(BadFile, match="holds no image"):
        read_dicom(_save(tmp_path / "a.dcm", data))


def test_foreign_empty_and_missing_files_are_named(tmp_path):
    (tmp_path / "text.dcm").write_text("no DICOM at all")
    (tmp_path / "empty.dcm").touch()
    for name, reason in (("text", "no DICOM file"), ("empty", "is empty"), ("none", "no such")):
        with pytest.raises(BadFile, match=reason):
            read_dicom(tmp_path / f"{name}.dcm")


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "image_dfl.dcm"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_truncated_files_are_named(tmp_path, name, kept):
    content = _published(name).read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(BadFile, match=r"truncated|holds no image|another size"):
        read_dicom(tmp_path / "a.dcm")


def test_transfer_syntaxes_of_films_are_named(tmp_path):
    data = _dataset(_values(0, 255, "u1"))
    data.PixelData = encapsulate([b"film"])
    data.file_meta.TransferSyntaxUID = MPEG2MPML
    data["PixelData"].is_undefined_length = True
    with pytest.raises(BadFile, match=r"its transfer syntax \(MPEG2 .*\) is not read"):
        read_dicom(_save(tmp_path / "a.dcm", data))


def test_a_missing_decoder_is_named():
    """In a process of its own, where the extra cannot be imported."""
    code = (
        "import sys\n"
        "blocked = ['pylibjpeg', 'openjpeg', 'libjpeg', 'gdcm', 'jpeg_ls']\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"
        "from pathlib import Path\n"
        "from trustsweep.data_pipelines.problems import BadFile\n"
        "from trustsweep.data_pipelines.readers.dicom import read_dicom\n"
        "try:\n"
        "    read_dicom(Path(sys.argv[1]))\n"
        "except BadFile as error:\n"
        "    print(error.reason)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(_published("MR_small_jpeg_ls_lossless.dcm"))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "JPEG-LS Lossless" in found.stdout
    assert "install pylibjpeg" in found.stdout


def _deflated(path: Path, inflated_zeros: int) -> Path:
    """A deflated file with a private element of so many zeros before its pixels."""
    data = _dataset(_values(0, 255, "u1"), syntax=DeflatedExplicitVRLittleEndian)
    _save(path, data)
    content = path.read_bytes()
    head = 128 + 4 + 12 + pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength
    body = zlib.decompress(content[head:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    length = inflated_zeros.to_bytes(4, "little")
    packed = packer.compress(b"\x05\x00\x00\x00OB\0\0" + length) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the same input gives the same output: packed once, written many times.
    mebibyte = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += mebibyte * (inflated_zeros // 2**20)
    path.write_bytes(content[:head] + packed + packer.compress(body) + packer.flush())
    return path


def test_deflated_bombs_are_not_inflated(tmp_path):
    path = _deflated(tmp_path / "bomb.dcm", 2**30)
    assert path.stat().st_size < 2**22
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadFile, match="inflates to more than 300,000,000 bytes"):
        read_dicom(path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 2.5 * MAX_BYTES


def _frame(name: str) -> bytes:
    data = pydicom.dcmread(_published(name))
    return pydicom.encaps.get_frame(data.PixelData, 0, number_of_frames=1)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("MR_small_jp2klossless.dcm", (64, 64, 1)),
        ("MR_small_jpeg_ls_lossless.dcm", (64, 64, 1)),
        ("JPGExtended.dcm", (1024, 256, 1)),
        ("SC_rgb_jpeg_dcmtk.dcm", (100, 100, 3)),
        ("GDCMJ2K_TextGBR.dcm", (400, 400, 3)),
    ],
)
def test_sizes_are_read_off_codestreams(name, size):
    frame = _frame(name)
    assert frame_size(frame) == size
    for length in range(0, 200, 7):
        assert frame_size(frame[:length]) in (None, size)


def test_run_lengths_are_counted():
    """Two segments, each padded to an even length: a zero is one literal byte's beginning."""
    assert 0 <= run_length_size(_frame("MR_small_RLE.dcm")) - 64 * 64 * 2 <= 2


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_frames_that_claim_another_size_are_not_decoded(tmp_path, name):
    """64 x 64 by the header, 4 gigapixels by the codestream."""
    data = pydicom.dcmread(_published(name))
    frame = bytearray(_frame(name))
    place = frame.find(b"\x00\x40\x00\x40")
    if place >= 0:  # JPEG-LS: two 16-bit sizes
        frame[place : place + 4] = b"\xff\xff\xff\xff"
    else:  # JPEG 2000: two of 32 bits
        place = frame.find(b"\x00\x00\x00\x40\x00\x00\x00\x40")
        frame[place : place + 8] = b"\x00\x00\xff\xff" * 2
    data.PixelData = encapsulate([bytes(frame)])
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(BadFile, match="compressed pixels are of another size"):
        read_dicom(tmp_path / "a.dcm")


def test_run_length_bombs_are_not_expanded(tmp_path):
    """Each pair of bytes stands for 128: far more than 64 x 64 pixels."""
    data = pydicom.dcmread(_published("MR_small_RLE.dcm"))
    segment = b"\x81\x00" * 2**19
    header = np.array([2, 64, 64 + len(segment), *([0] * 13)], "<u4").tobytes()
    data.PixelData = encapsulate([header + segment + segment])
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(BadFile, match="compressed pixels are of another size"):
        read_dicom(tmp_path / "a.dcm")
