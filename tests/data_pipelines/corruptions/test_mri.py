"""The formulas of the MRI corruptions, against MONAI, numpy's FFT and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from trustsweep.data_pipelines.corruptions import CORRUPTIONS, random
from trustsweep.data_pipelines.corruptions.bias_field import field, terms
from trustsweep.data_pipelines.corruptions.spike import position

SHAPES = [(5, 1, 24, 20), (5, 2, 21, 33), (3, 2, 6, 16, 12)]


def images(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def apply(name: str, image: torch.Tensor, parameter, seeds=None) -> torch.Tensor:
    seeds = torch.arange(len(image)) if seeds is None else seeds
    return CORRUPTIONS[name]().apply(image, parameter, seeds)


def test_bias_field_of_slices_equals_numpy():
    coefficients = images((2, 9)) - 0.5
    result = field((24, 20), coefficients)
    for row in range(2):
        matrix = np.zeros((4, 4))
        matrix[tuple(np.array(terms(2)).T)] = coefficients[row]
        grid = (np.linspace(-1, 1, 24), np.linspace(-1, 1, 20))
        expected = np.exp(np.polynomial.legendre.leggrid2d(*grid, matrix))
        np.testing.assert_allclose(result[row].numpy(), expected, rtol=1e-5)


def test_bias_field_of_volumes_equals_monai():
    from monai.transforms import RandBiasField

    shape, degrees = (6, 16, 12), terms(3)
    coefficients = images((2, len(degrees))) - 0.5
    result = field(shape, coefficients)
    for row in range(2):
        # MONAI wants the constant term as well, in the same order; the field is its exponential.
        theirs = RandBiasField(degree=3)._generate_random_field(
            shape, 3, [0.0, *coefficients[row].tolist()]
        )
        np.testing.assert_allclose(result[row].numpy(), np.exp(theirs), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bias_field_shades_all_channels_alike_by_its_strength(shape):
    flat = torch.full(shape, 0.5)
    log = [(apply("bias-field", flat, p) / 0.5).log().double() for p in (0.1, 0.4)]
    torch.testing.assert_close(log[1], 4 * log[0], atol=1e-5, rtol=1e-4)
    assert torch.equal(log[0][:, :1].expand_as(log[0]), log[0])


def test_bias_field_has_the_documented_deviation():
    log = (apply("bias-field", torch.full((2000, 1, 16, 16), 0.5), 0.5) / 0.5).log()
    assert float(log.std()) == pytest.approx(0.37, abs=0.05)
    assert float(log.mean()) == pytest.approx(0, abs=0.02)


def ghosted(plane: np.ndarray, axis: int, every: int, amount: float) -> np.ndarray:
    """One slice, by the definition: every n-th line of k-space but the middle 2 %."""
    spectrum = np.fft.fft2(plane)
    lines = np.round(np.fft.fftfreq(plane.shape[axis]) * plane.shape[axis])
    for index, line in enumerate(lines):
        if abs(line) % every == 0 and abs(line) > 0.01 * plane.shape[axis]:
            where = [slice(None), slice(None)]
            where[axis] = index
            spectrum[tuple(where)] *= 1 - amount
    result = np.fft.ifft2(spectrum)
    assert np.abs(result.imag).max() < 1e-12
    return result.real


@pytest.mark.parametrize("shape", [*SHAPES, (3, 1, 256, 210)], ids=str)
@pytest.mark.parametrize("amount", [0.2, 1.0])
def test_ghosting_equals_numpy_for_one_choice_of_axis_and_count(shape, amount):
    image = images(shape)
    result = apply("ghosting", image, amount)
    for row in range(shape[0]):
        before = image[row].double().numpy().reshape(-1, *shape[-2:])
        after = result[row].double().numpy().reshape(-1, *shape[-2:])
        choices = [(axis, every) for axis in (0, 1) for every in range(4, 11)]
        fits = [
            choice
            for choice in choices
            if all(
                np.allclose(ghosted(b, *choice, amount), a, atol=1e-5)
                for b, a in zip(before, after, strict=True)
            )
        ]
        assert fits


def test_ghosting_draws_every_axis_and_count():
    draw = random.uniform(torch.arange(3000), (2,))
    every = 4 + (draw[:, 0] * 7).long()
    assert stats.chisquare(np.bincount(every - 4, minlength=7)).pvalue > 1e-3
    image = images((200, 1, 40, 40))
    spectrum = torch.fft.fft2(apply("ghosting", image, 1.0)).abs() / torch.fft.fft2(image).abs()
    gone = spectrum[:, 0] < 1e-3
    rows, columns = gone.all(dim=2).any(dim=1), gone.all(dim=1).any(dim=1)
    assert (rows ^ columns).all()
    assert 70 < int(rows.sum()) < 130


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_spike_is_two_points_of_k_space(shape):
    image, seeds, amount = images(shape), torch.arange(shape[0]) + 3, 0.5
    change = np.fft.fftn(
        (apply("spike", image, amount, seeds) - image).double().numpy(),
        axes=tuple(range(2, len(shape))),
    )
    # The largest entry of the spectrum of a non-negative image is its sum.
    largest = image.double().sum(dim=tuple(range(2, len(shape)))).numpy()
    for row, point in enumerate(position(seeds, shape[2:]).long().tolist()):
        mirror = [-k for k in point]
        size = amount * largest[row]
        # Where a point is its own mirror image (Nyquist) both fall together.
        alone = any((2 * k) % n for k, n in zip(point, shape[2:], strict=True))
        for channel in range(shape[1]):
            spectrum = change[row, channel]
            expected = size[channel] / 2 if alone else None
            for place in (point, mirror):
                value = spectrum[tuple(k % n for k, n in zip(place, shape[2:], strict=True))]
                if expected is not None:
                    assert abs(value) == pytest.approx(expected, rel=1e-4)
                spectrum[tuple(k % n for k, n in zip(place, shape[2:], strict=True))] = 0
            assert np.abs(spectrum).max() < 1e-3


def test_spike_lies_between_its_frequencies_in_all_directions():
    sides = (200, 300)
    points = position(torch.arange(4000), sides)
    cycles = points / torch.tensor(sides)
    radius = cycles.norm(dim=1).numpy()
    assert stats.kstest((radius - 0.05) / 0.35, stats.uniform().cdf).statistic < 0.03
    angle = torch.atan2(cycles[:, 0], cycles[:, 1]).numpy() / math.pi
    assert stats.kstest(angle, stats.uniform(-1, 2).cdf).statistic < 0.03
    assert (position(torch.arange(500), (2, 3)) != 0).any(dim=1).all()


def moved(plane: np.ndarray, degrees: float, right: float, down: float) -> np.ndarray:
    """A slice sampled after a turn around its centre and shifts in pixels, by scipy."""
    turn = math.radians(degrees)
    matrix = np.array(
        [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    )  # of (y, x)
    middle = (np.array(plane.shape) - 1) / 2
    offset = middle - matrix @ middle + np.array([down, right])
    return ndimage.affine_transform(plane, matrix, offset=offset, order=1, mode="nearest")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("amount", [2, 10])
def test_mri_motion_equals_scipy_and_numpy(shape, amount):
    image, seeds = images(shape), torch.arange(shape[0]) + 11
    result = apply("mri-motion", image, amount, seeds)
    height, width = shape[-2:]
    times = random.uniform(seeds, (2,), stream=2)
    moves = [random.symmetric(seeds, (3,), stream) * amount for stream in (0, 1)]
    frequency = np.fft.fftfreq(height) + 0.5
    for row in range(shape[0]):
        start, end = 0.15 + 0.3 * float(times[row, 0]), 0.55 + 0.3 * float(times[row, 1])
        filled = (frequency < start, frequency >= end)
        before = image[row].double().numpy().reshape(-1, height, width)
        after = result[row].double().numpy().reshape(-1, height, width)
        for plane, found in zip(before, after, strict=True):
            lines = np.fft.fft2(plane)
            for part, move in zip(filled, moves, strict=True):
                degrees, right, down = move[row].tolist()
                copy = moved(plane, degrees, right * width / 100, down * height / 100)
                lines[part] = np.fft.fft2(copy)[part]
            np.testing.assert_allclose(found, np.abs(np.fft.ifft2(lines)), atol=2e-5)


def test_mri_motion_leaves_the_anatomy_in_its_place():
    """Masks must still fit: the best alignment with the clean image is no shift at all."""
    blob = torch.zeros(40, 1, 64, 64)
    blob[:, :, 20:40, 24:50] = 0.8
    result = apply("mri-motion", blob, 10)
    spectrum = torch.fft.fft2(result) * torch.fft.fft2(blob).conj()
    peak = torch.fft.ifft2(spectrum).real.flatten(1).argmax(dim=1)
    shift = torch.stack([peak // 64, peak % 64])
    shift = torch.where(shift > 32, shift - 64, shift).abs()
    assert float((shift <= 1).all(dim=0).float().mean()) >= 0.95
