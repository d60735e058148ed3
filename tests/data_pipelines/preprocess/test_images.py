"""Resizing: averages where it shrinks, keeps ranges, masks binary and boxes in place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.preprocess import resize_boxes, resize_image, resize_mask

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)


def test_shrinking_an_image_averages():
    """A one-pixel checkerboard becomes its mean, where sampling single pixels would alias."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = resize_image(board, 16)
    assert small.shape == (1, 16, 16)
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_resizing_to_the_same_size_changes_nothing():
    square = GREY[:, :20]
    assert np.array_equal(resize_image(square, 20)[0], square)
    assert np.array_equal(resize_mask(square % 2, 20)[0], square % 2)
    deep = square.astype(np.float32) / 7
    assert np.array_equal(resize_image(deep, 20)[0], deep)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_each_channel_is_resized_on_its_own(channels):
    image = np.random.default_rng(2).integers(0, 256, (20, 30, channels), np.uint8)
    resized = resize_image(image, 16)
    assert resized.shape == (channels, 16, 16)
    assert resized.dtype == np.uint8
    for c in range(channels):
        assert np.array_equal(resized[c], resize_image(image[..., c], 16)[0])


def test_floating_point_resizes_as_bytes_do():
    as_bytes = resize_image(COLOUR, 13).astype(float)
    as_floats = resize_image(COLOUR.astype(np.float32), 13)
    assert as_floats.dtype == np.float32
    assert np.abs(as_bytes - as_floats).max() <= 1


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_no_value_leaves_its_channels_range(size, seed):
    image = np.random.default_rng(seed).random((9, 17), np.float32)
    resized = resize_image(image, size)
    assert image.min() <= resized.min()
    assert resized.max() <= image.max()
    constant = np.full((9, 17), 0.1, np.float32)
    assert (resize_image(constant, size) == np.float32(0.1)).all()


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="uint8 or float32, not float64"):
        resize_image(GREY.astype(float), 16)


@pytest.mark.parametrize("size", [7, 16, 50])
def test_a_resized_mask_stays_binary_and_in_place(size):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 4:12] = 1
    resized = resize_mask(mask, size)
    assert resized.shape == (1, size, size)
    assert set(np.unique(resized)) == {0, 1}
    assert resized.mean() == pytest.approx(mask.mean(), abs=0.04)


@given(st.tuples(st.integers(8, 60), st.integers(8, 60)), st.integers(32, 96))
def test_a_box_follows_what_it_surrounds(shape, size):
    """The box of a drawn rectangle, resized, is the rectangle's box in the resized image."""
    height, width = shape
    box = np.array([[width // 4, height // 3, width // 2 + 1, height - 1]], np.float32)
    drawn = np.zeros(shape, np.uint8)
    x0, y0, x1, y1 = box[0].astype(int)
    drawn[y0:y1, x0:x1] = 1
    y, x = np.nonzero(resize_mask(drawn, size)[0])
    found = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    resized = resize_boxes(box, shape, size)
    assert resized.dtype == np.float32
    assert np.abs(resized[0] - found).max() <= 1


def test_no_boxes_stay_none():
    assert resize_boxes(np.zeros((0, 4), np.float32), (10, 20), 5).shape == (0, 4)
