"""Resizing: averages where it shrinks, keeps masks binary."""

import numpy as np
import pytest

from data_pipelines.preprocess import resize_image, resize_mask

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)


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


@pytest.mark.parametrize("size", [7, 16, 50])
def test_a_resized_mask_stays_binary_and_in_place(size):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 4:12] = 1
    resized = resize_mask(mask, size)
    assert resized.shape == (1, size, size)
    assert set(np.unique(resized)) == {0, 1}
    assert resized.mean() == pytest.approx(mask.mean(), abs=0.04)
