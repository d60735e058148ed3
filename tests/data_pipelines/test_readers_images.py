"""Reading image files: what is accepted comes out right, everything else is named."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines.problems import BadFile
from data_pipelines.readers.images import MAX_PIXELS, read_grey, read_mask

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)


def _png_that_claims(path, width: int, height: int) -> None:
    """A small PNG file whose header promises width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_grey_png_comes_back_exactly(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(read_grey(tmp_path / "a.png"), GREY)


def test_grey_jpeg_is_read(tmp_path):
    smooth = np.linspace(0, 255, 400).reshape(20, 20).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_grey(tmp_path / "a.jpg").astype(int) - smooth).max() < 12


def test_grey_stored_as_rgb_is_grey(tmp_path):
    Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(tmp_path / "a.png")
    assert np.array_equal(read_grey(tmp_path / "a.png"), GREY)


@pytest.mark.parametrize(
    ("mode", "meaning"),
    [
        ("I;16", "16-bit grey"),
        ("RGBA", "colour with transparency"),
        ("LA", "grey with transparency"),
        ("P", "a colour palette"),
        ("1", "1-bit"),
    ],
)
def test_other_modes_are_named(tmp_path, mode, meaning):
    path = tmp_path / "odd.png"
    source = Image.fromarray(GREY.astype(np.uint16)) if mode == "I;16" else Image.fromarray(GREY)
    (source if source.mode == mode else source.convert(mode)).save(path)
    with pytest.raises(BadFile) as raised:
        read_grey(path)
    assert raised.value.path == path
    assert f"mode {mode} ({meaning})" in raised.value.reason
    assert "Convert it to 8-bit grey" in raised.value.reason


def test_colours_are_refused(tmp_path):
    colour = np.stack([GREY, GREY, GREY // 2], axis=-1)
    Image.fromarray(colour).save(tmp_path / "a.png")
    with pytest.raises(BadFile, match=r"mode RGB \(colour\)"):
        read_grey(tmp_path / "a.png")


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_files_are_named(tmp_path, kept, suffix):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.tile(GREY, (6, 6))).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(BadFile, match="damaged or truncated"):
        read_grey(path)


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BadFile, match="damaged or truncated"):
        read_grey(path)


def test_empty_and_foreign_files_are_named(tmp_path):
    empty, text = tmp_path / "empty.png", tmp_path / "text.png"
    empty.touch()
    text.write_text("not an image at all")
    with pytest.raises(BadFile, match="the file is empty"):
        read_grey(empty)
    with pytest.raises(BadFile, match="not a PNG, JPEG or TIFF image"):
        read_grey(text)


def test_other_formats_are_not_decoded(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path, format="BMP")
    with pytest.raises(BadFile, match="not a PNG, JPEG or TIFF image"):
        read_grey(path)


@pytest.mark.parametrize("side", [8_001, 12_000, 100_000])
def test_decompression_bombs_are_refused_undecoded(tmp_path, side):
    assert side**2 > MAX_PIXELS
    _png_that_claims(tmp_path / "bomb.png", side, side)
    with pytest.raises(BadFile, match="more than 64,000,000 pixels; not decoded"):
        read_grey(tmp_path / "bomb.png")


@pytest.mark.parametrize("white", [1, 255])
def test_masks_become_zero_and_one(tmp_path, white):
    truth = (GREY > 128).astype(np.uint8)
    Image.fromarray(truth * np.uint8(white)).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", GREY.shape), truth)


def test_one_bit_and_empty_masks_are_read(tmp_path):
    truth = (GREY > 128).astype(np.uint8)
    Image.fromarray(truth.astype(bool)).save(tmp_path / "one.png")
    Image.fromarray(truth * np.uint8(0)).save(tmp_path / "none.png")
    assert np.array_equal(read_mask(tmp_path / "one.png", GREY.shape), truth)
    assert not read_mask(tmp_path / "none.png", GREY.shape).any()


@pytest.mark.parametrize("values", [(0, 128), (0, 1, 255), (0, 2)])
def test_masks_of_other_values_are_named(tmp_path, values):
    mask = np.resize(np.array(values, np.uint8), (4, 4))
    Image.fromarray(mask).save(tmp_path / "m.png")
    odd = {128: 128, 255: 1, 2: 2}[values[-1]]
    with pytest.raises(BadFile, match=f"this one {odd} as well"):
        read_mask(tmp_path / "m.png", (4, 4))


def test_masks_of_another_size_are_named(tmp_path):
    Image.fromarray(np.zeros((20, 29), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(BadFile, match="the mask is 29 x 20 pixels, its image 30 x 20"):
        read_mask(tmp_path / "m.png", (20, 30))
