"""Augmentation: what is drawn, where pixels go, and what must stay as it is."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from trustsweep.data_pipelines.augmentation import FLIPS, Augmentation
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Kind, Manifest, Modality, TaskName

torch.set_num_threads(1)


def manifest(shape=(1, 24, 24), **changes):
    return Manifest(
        name="toy", tasks=(TaskName.SEGMENTATION,), image_shape=shape, image_scale=255.0,
        classes=("a", "b"), mean=(0.5,) * len(shape[:1]), std=(0.2,) * len(shape[:1]),
        split_counts={}, columns={}, fingerprint="0", **changes,
    )  # fmt: skip


def batch(count=6, shape=(1, 24, 24)):
    """A smooth bright blob off the centre, and its mask."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape[1:]), indexing="ij")
    far = sum((axis - 0.15 * i) ** 2 for i, axis in enumerate(axes, 1))
    image = torch.exp(-6 * far).expand(count, *shape).clone()
    ids = tuple(f"s{i}" for i in range(count))
    return Batch(sample_id=ids, image=image, mask=(image[:, :1] > 0.5).float())


def same(a, b):
    return torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask)


@pytest.mark.parametrize("shape", [(1, 24, 24), (3, 20, 28), (2, 12, 20, 24)], ids=str)
def test_views_stay_images_and_masks_and_follow_sample_and_epoch_alone(shape):
    made, data = Augmentation(1.0, "all", 3, manifest=manifest(shape)), batch(shape=shape)
    seen = made(data, 2)
    assert seen.image.shape == data.image.shape
    assert float(seen.image.min()) >= 0
    assert float(seen.image.max()) <= 1
    assert set(seen.mask.unique().tolist()) == {0.0, 1.0}
    assert len({tuple(view.flatten().tolist()) for view in seen.image}) == len(data)
    # The same for a sample wherever it stands, and in another process after a restart.
    again = Augmentation(1.0, "all", 3, manifest=manifest(shape))
    rows = [4, 1]
    assert same(again(data.select(rows), 2), seen.select(rows))
    assert not same(made(data, 3), seen)
    assert not same(Augmentation(1.0, "all", 4, manifest=manifest(shape))(data, 2), seen)


def test_strength_zero_changes_nothing_and_more_changes_more():
    data = batch(64)
    assert Augmentation(0.0, "all", 0, manifest=manifest())(data, 0) is data
    moved = [
        (Augmentation(s, "none", 0, manifest=manifest())(data, 0).image - data.image).abs().mean()
        for s in (0.1, 0.4, 1.0)
    ]
    assert 0 < moved[0] < moved[1] < moved[2]


def test_mask_and_image_move_together():
    seen = Augmentation(1.0, "all", 0, manifest=manifest((1, 64, 64)))(batch(32, (1, 64, 64)), 0)
    for image, mask in zip(seen.image[:, 0], seen.mask[:, 0], strict=True):
        # Intensities change monotonically: the mask holds the brightest pixels still.
        inside, outside = image[mask > 0], image[mask == 0]
        threshold = (inside.min() + outside.max()) / 2
        assert ((image > threshold) != (mask > 0)).float().mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 8, 24, 24)], ids=str)
@pytest.mark.parametrize("flips", FLIPS)
def test_classes_and_regions_move_whole(shape, flips):
    """No class between two others arises, and a mask of classes moves as one mask of each does."""
    data = batch(12, shape)
    classes = torch.bucketize(data.image[:, :1], torch.tensor([0.3, 0.6, 0.9])).float() * 2
    one_hot = torch.cat([(classes == value).float() for value in (0, 2, 4, 6)], dim=1)
    made = Augmentation(1.0, flips, 5, manifest=manifest(shape))
    seen = made(dataclasses.replace(data, mask=classes), 1).mask
    assert set(seen.unique().tolist()) == {0.0, 2.0, 4.0, 6.0}
    assert not torch.equal(seen, classes)
    layers = made(dataclasses.replace(data, mask=one_hot), 1).mask
    assert torch.equal(layers, torch.cat([(seen == v).float() for v in (0, 2, 4, 6)], dim=1))


def test_geometry_is_that_of_scipy():
    shape = (1, 20, 28)
    data = batch(5, shape)
    made = Augmentation(1.0, "left-right", 7, manifest=manifest(shape))
    seeds = torch.arange(5)
    moved = made._resampled(data.image, seeds, "bilinear")
    matrices = made._matrices(seeds, torch.Size(shape[1:])).double().numpy()
    for image, matrix, got in zip(data.image, matrices, moved, strict=True):
        linear, offset = matrix[:, :2], matrix[:, 2]
        # An orthogonal matrix times the zoom.
        assert np.allclose(linear @ linear.T, np.eye(2) * abs(np.linalg.det(linear)), atol=1e-6)
        expected = ndimage.affine_transform(
            image[0].double().numpy(), linear, offset, order=1, mode="nearest"
        )
        assert np.abs(expected - got[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("dims", [2, 3])
def test_only_what_is_allowed_is_mirrored(flips, dims):
    shape = (1, *(16,) * dims)
    made = Augmentation(1e-6, flips, 0, manifest=manifest(shape))
    seeds = torch.arange(400)
    matrices = made._matrices(seeds, torch.Size(shape[1:]))
    mirrored = torch.stack([matrices[:, i, i] < 0 for i in range(dims)], 1).float().mean(0)
    allowed = {"none": 0, "left-right": 1, "all": dims}[flips]
    assert torch.all(mirrored[: dims - allowed] == 0)
    assert torch.all((mirrored[dims - allowed :] - 0.5).abs() < 4 * 0.5 / math.sqrt(400))
    flat = made._matrices(seeds, torch.Size(shape[1:]))
    assert torch.allclose(flat[:, :, :dims].abs().diagonal(dim1=1, dim2=2), torch.ones(400, dims))


def test_volumes_turn_in_the_plane_of_their_slices():
    made = Augmentation(1.0, "none", 0, manifest=manifest((1, 8, 32, 32)))
    linear = made._matrices(torch.arange(50), torch.Size((8, 32, 32)))[:, :, :3]
    assert torch.all(linear[:, 0, 1:] == 0)
    assert torch.all(linear[:, 1:, 0] == 0)
    assert bool((linear[:, 1, 2] != 0).any())


def test_absent_modalities_keep_their_zeros_and_tables_their_values():
    modalities = (
        Modality(name="flair", kind=Kind.IMAGE, column="image", indices=(0,)),
        Modality(name="t1", kind=Kind.IMAGE, column="image", indices=(1,)),
    )
    shape = (2, 24, 24)
    data = batch(4, shape)
    present = torch.ones(4, 2)
    present[:2, 1] = 0
    image = data.image.clone()
    image[:2, 1] = 0
    data = dataclasses.replace(
        data, image=image, present=present, tabular=torch.rand(4, 3),
        more_images={"other": torch.rand(4, 1, 8, 8)},
    )  # fmt: skip
    seen = Augmentation(1.0, "none", 0, manifest=manifest(shape, modalities=modalities))(data, 0)
    assert bool((seen.image[:2, 1] == 0).all())
    assert bool((seen.image[2:, 1] != data.image[2:, 1]).any())
    assert torch.equal(seen.tabular, data.tabular)
    assert bool((seen.more_images["other"] != data.more_images["other"]).any())


def test_data_without_images_pass():
    table = Batch(sample_id=("a",), image=torch.zeros(1, 0), tabular=torch.rand(1, 2))
    made = Augmentation(1.0, "none", 0, manifest=manifest((), modalities=()))
    assert torch.equal(made(table, 0).tabular, table.tabular)


@pytest.mark.parametrize(
    ("strength", "flips", "message"),
    [(1.5, "none", "'augmentation' is 1.5"), (0.5, "left", "did you mean 'left-right'")],
)
def test_bad_settings_are_named(strength, flips, message):
    with pytest.raises(UserError, match=message):
        Augmentation(strength, flips, 0, manifest=manifest())
