import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.ndimage import convolve1d

from data_pipelines.corruptions import CORRUPTIONS
from data_pipelines.corruptions.seeds import draw_seeds, normal
from data_pipelines.corruptions.suite import TrainingCorruption, corrupt
from data_pipelines.errors import UserError
from data_pipelines.schema import Batch

SHAPES = [(6, 1, 24, 20), (3, 3, 16, 16), (2, 1, 12, 14, 16)]


def images(shape, seed=0):
    smooth = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return 0.2 + 0.6 * smooth


def ids(count):
    return tuple(f"sample-{i}" for i in range(count))


@pytest.fixture(params=list(CORRUPTIONS))
def corruption(request):
    return CORRUPTIONS[request.param]()


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_type_and_range_are_kept(corruption, shape):
    image = images(shape)
    image[0].fill_(1.0)
    image[1].fill_(0.0)
    for severity in range(1, 6):
        out = corruption(image, severity, draw_seeds(ids(shape[0])))
        assert out.shape == image.shape
        assert out.dtype == image.dtype
        assert out.min() >= 0
        assert out.max() <= 1
        assert out.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_is_corrupted_alike_in_any_batch(corruption, shape):
    image, seeds = images(shape), draw_seeds(ids(shape[0]), "salt")
    whole = corruption(image, 3, seeds)
    turned = corruption(image.flip(0), 3, seeds.flip(0)).flip(0)
    alone = torch.cat(
        [corruption(image[i : i + 1], 3, seeds[i : i + 1]) for i in range(len(seeds))]
    )
    torch.testing.assert_close(whole, turned, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-6)


def test_a_higher_severity_changes_more(corruption):
    image = images((4, 1, 32, 32))
    seeds = draw_seeds(ids(4))
    changes = [(corruption(image, s, seeds) - image).abs().mean().item() for s in range(1, 6)]
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_the_input_is_left_as_it_was(corruption):
    image = images((2, 1, 16, 16))
    before = image.clone()
    corruption(image, 5, draw_seeds(ids(2)))
    assert torch.equal(image, before)


@pytest.mark.parametrize("severity", [0, 6])
def test_a_severity_outside_one_to_five_is_refused(corruption, severity):
    with pytest.raises(UserError, match=corruption.name):
        corruption(images((1, 1, 16, 16)), severity, draw_seeds(ids(1)))


def test_noise_has_the_stated_standard_deviation():
    image = torch.full((2, 1, 256, 256), 0.5)
    noise = CORRUPTIONS["gaussian-noise"]()(image, 2, draw_seeds(ids(2))) - image
    assert noise.std().item() == pytest.approx(0.08, rel=0.02)
    assert abs(noise.mean().item()) < 1e-3


def test_blur_equals_scipys_convolution():
    image = images((1, 1, 40, 30))
    places = np.arange(5) - 2
    kernel = np.exp(-0.5 * (places / 1.1) ** 2)
    kernel /= kernel.sum()
    expected = image[0, 0].numpy().astype(np.float64)
    for axis in (0, 1):
        expected = convolve1d(expected, kernel, axis=axis, mode="mirror")
    out = CORRUPTIONS["gaussian-blur"]()(image, 2, draw_seeds(ids(1)))[0, 0].numpy()
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_contrast_is_pillows_enhancement_up_to_rounding():
    grey = (images((1, 1, 32, 32))[0, 0] * 255).round().to(torch.uint8).numpy()
    expected = np.asarray(ImageEnhance.Contrast(Image.fromarray(grey)).enhance(0.6)) / 255
    image = torch.from_numpy(grey)[None, None] / 255
    out = CORRUPTIONS["contrast"]()(image, 4, draw_seeds(ids(1)))[0, 0].numpy()
    np.testing.assert_allclose(out, expected, atol=1.5 / 255)


def test_seeds_are_stable_over_processes_and_apart_for_every_use():
    assert draw_seeds(["a"], "x", 1).tolist() == [1190345071291386226]
    seeds = draw_seeds(ids(500), "x", 1)
    assert len(set(seeds.tolist())) == 500
    assert not set(seeds.tolist()) & set(draw_seeds(ids(500), "x", 2).tolist())
    assert (seeds >= 0).all()


def test_draws_follow_their_seed():
    a, b = normal((3, 4), torch.tensor([5, 6])), normal((3, 4), torch.tensor([6, 5]))
    assert torch.equal(a, b.flip(0))


def batch(count=200):
    return Batch(sample_id=ids(count), image=images((count, 1, 8, 8)))


def test_training_corruption_hits_its_share_and_depends_on_seed_and_epoch_alone():
    cells = [("gaussian-noise", 3), ("contrast", 5)]
    draw = TrainingCorruption(cells, share=0.3, seed=1)
    first = draw(batch(), epoch=2).image
    touched = (first != batch().image).flatten(1).any(1)
    assert 0.2 < touched.float().mean() < 0.4
    assert torch.equal(first, draw(batch(), epoch=2).image)
    assert not torch.equal(first, draw(batch(), epoch=3).image)
    part = draw(batch().select([5, 3, 190]), epoch=2).image
    torch.testing.assert_close(part, first[[5, 3, 190]], rtol=0, atol=1e-6)
    assert torch.equal(TrainingCorruption(cells, 0.0, 1)(batch(), 0).image, batch().image)


def test_the_evaluations_draw_is_the_same_for_every_model():
    assert torch.equal(
        corrupt(batch(), "gaussian-noise", 2).image, corrupt(batch(), "gaussian-noise", 2).image
    )
