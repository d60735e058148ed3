"""Reading image files: what is accepted comes out right, everything else is named."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, TiffTags

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.images import MAX_PIXELS, read_colour, read_grey, read_mask

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


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_grey_tiff_comes_back_exactly(tmp_path, compression):
    Image.fromarray(GREY).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(read_grey(tmp_path / "a.tif"), GREY)


@pytest.mark.parametrize(
    ("suffix", "dtype", "low", "high"),
    [
        ("png", "u1", 0, 255),
        ("png", "u2", 0, 65_535),
        ("tif", "u2", 0, 65_535),
        ("tif", ">u2", 0, 65_535),
        ("tif", "i4", -(2**24), 2**24),
        ("tif", "f4", -1000, 1000),
    ],
)
def test_deep_grey_comes_as_stored(tmp_path, suffix, dtype, low, high):
    values = np.random.default_rng(1).integers(low, high, (20, 30), endpoint=True).astype(dtype)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    found = read_grey(tmp_path / f"a.{suffix}", deep=True)
    assert found.dtype == np.float32
    assert np.array_equal(found, values)


def test_unsigned_32_bits_do_not_become_negative(tmp_path):
    """Pillow writes none: the sample format (tag 339) of a signed file is changed."""
    Image.fromarray(np.full((4, 4), -1, np.int32)).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    entry = struct.pack("<HHIHH", 339, 3, 1, 2, 0)
    assert entry in content
    unsigned = content.replace(entry, struct.pack("<HHIHH", 339, 3, 1, 1, 0))
    (tmp_path / "a.tif").write_bytes(unsigned)
    assert (read_grey(tmp_path / "a.tif", deep=True) == np.float32(2**32 - 1)).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_counted(tmp_path, odd):
    values = np.zeros((4, 4), np.float32)
    values[0, :3] = odd
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(BadFile, match="3 pixels are NaN or infinite"):
        read_grey(tmp_path / "a.tif", deep=True)


def test_deep_grey_with_white_at_zero_is_refused(tmp_path):
    """Pillow inverts such 8-bit files, but not deeper ones."""
    image = Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4))
    image.save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(BadFile, match="white is stored as 0"):
        read_grey(tmp_path / "a.tif", deep=True)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colours_come_back_exactly(tmp_path, suffix):
    colour = np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read_colour(tmp_path / f"a.{suffix}"), colour)


def test_grey_is_repeated_where_colour_is_wanted(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(read_colour(tmp_path / "a.png"), np.stack([GREY] * 3, axis=-1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "1"])
def test_other_modes_of_colour_are_named(tmp_path, mode):
    Image.fromarray(GREY).convert(mode).save(tmp_path / "a.tif")
    with pytest.raises(BadFile, match=f"mode {mode} .* where 8-bit colour is expected"):
        read_colour(tmp_path / "a.tif")


def test_a_transparent_colour_is_refused(tmp_path):
    Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(tmp_path / "a.png", transparency=(1, 1, 1))
    with pytest.raises(BadFile, match="has a transparent colour"):
        read_colour(tmp_path / "a.png")


def _png(path, depth: int, kind: int, rows: bytes, side: int) -> None:
    """Of a bit depth and colour type that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("read", [read_grey, read_colour])
def test_16_bit_colour_is_not_cut_to_8(tmp_path, read):
    """Pillow drops the lower byte without a word."""
    _png(tmp_path / "a.png", 16, 2, (b"\0" + bytes(range(12))) * 2, side=2)
    with pytest.raises(BadFile, match="16-bit colour"):
        read(tmp_path / "a.png")


def test_signed_bytes_are_refused(tmp_path):
    """Pillow reads -1 as 255."""
    Image.fromarray(GREY).save(tmp_path / "a.tif", tiffinfo={339: 2})
    with pytest.raises(BadFile, match=r"signed values|not a PNG, JPEG or TIFF"):
        read_grey(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_several_pages_are_refused(tmp_path, suffix):
    page = Image.fromarray(GREY)
    page.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    with pytest.raises(BadFile, match="several pages"):
        read_grey(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_truncated_tiffs_are_named(tmp_path, kept, compression, capfd):
    path = tmp_path / "a.tif"
    Image.fromarray(np.tile(GREY, (6, 6))).save(path, compression=compression)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(BadFile, match=r"damaged or truncated|not a PNG"):
        read_grey(path)
    assert capfd.readouterr() == ("", "")


def test_tiffs_of_huge_tiles_are_refused_undecoded(tmp_path):
    """One tile of 100,000 x 100,000 around an image of 20 x 30. Pillow writes no such tags: two
    of no meaning are renamed to the width and the length of a tile."""
    private = TiffImagePlugin.ImageFileDirectory_v2()
    for number in (65_000, 65_001):
        private.tagtype[number] = TiffTags.LONG
        private[number] = 100_000
    Image.fromarray(GREY).save(tmp_path / "a.tif", tiffinfo=private)
    content = (tmp_path / "a.tif").read_bytes()
    for number, meant in ((65_000, 322), (65_001, 323)):
        entry = struct.pack("<HHI", number, TiffTags.LONG, 1)
        assert entry in content
        content = content.replace(entry, struct.pack("<HHI", meant, TiffTags.LONG, 1))
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(BadFile, match="more than 64,000,000 pixels; not decoded"):
        read_grey(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_masks_of_several_classes(tmp_path, mode):
    stored = np.random.default_rng(3).choice(np.array([0, 50, 200], np.uint8), (20, 30))
    image = Image.fromarray(stored.astype(np.uint16) if mode == "I;16" else stored)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "m.png")
    assert Image.open(tmp_path / "m.png").mode == mode
    found = read_mask(tmp_path / "m.png", GREY.shape, {0: 0, 50: 2, 200: 1})
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.array([0, 2, 1])[np.searchsorted([0, 50, 200], stored)])


def test_stored_values_without_a_class_are_named(tmp_path):
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(tmp_path / "m.png")
    with pytest.raises(BadFile, match=r"holds 2, 3, 4, 5, 6 and 9 more, .* Known: 0, 1\."):
        read_mask(tmp_path / "m.png", (4, 4), {1: 1, 0: 0})


def test_real_tiffs_are_read(real_data):
    folder = min((real_data / "lgg-mri-segmentation" / "kaggle_3m").glob("TCGA*"))
    for mask in sorted(folder.glob("*_mask.tif")):
        image = mask.with_name(mask.name.replace("_mask", ""))
        with Image.open(image) as oracle:
            assert np.array_equal(read_colour(image), np.array(oracle))
        with Image.open(mask) as oracle:
            assert np.array_equal(read_mask(mask, (256, 256)), np.array(oracle) > 0)
