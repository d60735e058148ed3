"""The contract that every registered corruption keeps."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from trustsweep.data_pipelines.corruptions import CORRUPTIONS
from trustsweep.data_pipelines.corruptions.base import SEVERITIES, ImageCorruption
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.schema import (
    Batch,
    Feature,
    ImageSpec,
    Kind,
    Manifest,
    Modality,
    TaskName,
)

#: 2-D and 3-D, one and several channels, odd sides.
SHAPES = [(5, 1, 24, 20), (5, 3, 33, 31), (3, 2, 12, 16, 5)]
#: These do the same to every sample; all others draw.
FIXED = {
    *("gaussian-blur", "defocus-blur", "zoom-blur", "pixelate", "jpeg"),
    *("brightness-up", "brightness-down", "contrast-up", "contrast-down", "gamma-up", "gamma-down"),
}
#: A flat image stays what it is; JPEG's rounding and what changes the brightness move it.
KEEPS_FLAT = {
    *("gaussian-blur", "defocus-blur", "zoom-blur", "motion-blur", "pixelate"),
    *("contrast-up", "contrast-down", "ghosting", "mri-motion"),
}
IMAGES = [n for n in sorted(CORRUPTIONS) if issubclass(CORRUPTIONS[n], ImageCorruption)]
FIELDS = ("image", "tabular", "series", "series_mask", "series_delta", "present")

MANIFEST = Manifest(
    name="made",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(2, 24, 20),
    image_scale=255,
    classes=("no", "yes"),
    mean=(0.5, 0.5),
    std=(0.2, 0.2),
    split_counts={"train": 6},
    columns={},
    fingerprint="0",
    series=(Feature(name="pulse", unit="1/min", mean=80, std=12), Feature(name="ph", std=0.1)),
    series_hours=1.0,
    tabular=(Feature(name="age", std=15), Feature(name="sex", vocabulary=("f", "m"))),
    more_images={"tiles": ImageSpec(shape=(3, 4, 12, 16), mean=(0.5,) * 3, std=(0.2,) * 3)},
    modalities=(
        Modality(name="t1", kind=Kind.IMAGE, column="image", indices=(0,)),
        Modality(name="t2", kind=Kind.IMAGE, column="image", indices=(1,)),
        Modality(name="slide", kind=Kind.IMAGE, column="tiles"),
        Modality(name="vitals", kind=Kind.SERIES, column="series"),
        Modality(name="age", kind=Kind.TABULAR, column="tabular", indices=(0,)),
        Modality(name="sex", kind=Kind.TABULAR, column="tabular", indices=(1,)),
    ),
)


def images(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def seeds(count: int) -> torch.Tensor:
    return draw_seeds([f"s{i}" for i in range(count)])


def batch_of(image: torch.Tensor) -> Batch:
    return Batch(sample_id=tuple(f"s{i}" for i in range(len(image))), image=image)


def multimodal(count: int = 6) -> Batch:
    """Two sequences, a slide, vital signs and a table; some values and modalities are missing."""
    series = images((count, 8, 2), 1) * 20 + 70
    mask = (images((count, 8, 2), 2) < 0.7).float()
    present = torch.ones(count, 6)
    present[0, [1, 2]] = 0
    present[1, [3, 4]] = 0
    tabular = torch.stack([images((count,), 3) * 60 + 20, (images((count,), 4) < 0.5).float()], 1)
    image, tiles = images((count, 2, 24, 20), 5), images((count, 3, 4, 12, 16), 6)
    image[0, 1], tiles[0], mask[1], tabular[1, 0] = 0, 0, 0, torch.nan
    delta = torch.zeros_like(mask)
    for step in range(1, 8):
        delta[:, step] = 1 + torch.where(mask[:, step - 1] > 0, 0, delta[:, step - 1])
    return Batch(
        sample_id=tuple(f"s{i}" for i in range(count)),
        image=image,
        more_images={"tiles": tiles},
        series=series.masked_fill(mask == 0, torch.nan),
        series_mask=mask,
        series_delta=delta,
        tabular=tabular,
        present=present,
        label=torch.arange(count),
    )


def columns(batch: Batch) -> dict[str, torch.Tensor]:
    own = {n: getattr(batch, n) for n in FIELDS if getattr(batch, n) is not None}
    return own | batch.more_images


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal to the bit, NaN equal to NaN."""
    return left.shape == right.shape and bool(
        ((left == right) | (left != left) & (right != right)).all()
    )


@pytest.fixture(params=sorted(CORRUPTIONS))
def corruption(request):
    return CORRUPTIONS[request.param]()


@pytest.fixture(params=IMAGES)
def image_corruption(request):
    return CORRUPTIONS[request.param]()


def worse(corruption, image: torch.Tensor, severity: int = 3, its_seeds=None) -> torch.Tensor:
    its_seeds = seeds(len(image)) if its_seeds is None else its_seeds
    parameter = corruption.severities[severity - 1]
    return corruption(batch_of(image), parameter, its_seeds, MANIFEST).image


def test_is_registered_by_its_name_and_described(corruption):
    assert isinstance(CORRUPTIONS[corruption.name](), type(corruption))
    assert type(corruption).__doc__.partition("\n")[0].endswith((".", ")", ","))
    assert len(set(corruption.severities)) == 5
    assert corruption.touches <= {"image", "series", "tabular", "present"}
    assert corruption.acts_on(MANIFEST)
    assert corruption.needs


@pytest.mark.parametrize("severity", SEVERITIES)
def test_changes_a_multimodal_batch_only_where_it_says(corruption, severity):
    batch = multimodal()
    before = {name: value.clone() for name, value in columns(batch).items()}
    result = corruption(batch, corruption.severities[severity - 1], seeds(6), MANIFEST)
    assert all(same(columns(batch)[name], before[name]) for name in before)
    assert result.sample_id == batch.sample_id
    assert result.label is batch.label
    after = columns(result)
    assert {n: (v.shape, v.dtype) for n, v in after.items()} == {
        n: (v.shape, v.dtype) for n, v in before.items()
    }
    changed = {name for name in after if not same(after[name], before[name])}
    allowed = {
        "image": {"image", "tiles"},
        "series": {"series", "series_mask", "series_delta"},
        "tabular": {"tabular"},
        "present": set(before),
    }
    assert changed
    assert changed <= set().union(*(allowed[part] for part in corruption.touches))
    for name in ("image", "tiles"):
        assert 0 <= after[name].min() <= after[name].max() <= 1
    # What was missing stays missing, and the columns agree with each other.
    assert after["series"].isnan()[before["series"].isnan()].all()
    assert after["tabular"].isnan()[before["tabular"].isnan()].all()
    assert torch.equal(after["series_mask"] == 0, after["series"].isnan())
    assert (after["image"][0, 1] == 0).all()
    assert (after["tiles"][0] == 0).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_keeps_shape_and_range_of_images(image_corruption, shape):
    image = images(shape)
    for severity in (1, 5):
        result = worse(image_corruption, image, severity)
        assert result.shape == image.shape
        assert 0 <= result.min() <= result.max() <= 1
        assert not torch.equal(result, image)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_keeps_the_type_and_the_precision_of_float32(image_corruption, dtype):
    image = images((2, 1, 24, 20)).to(dtype)
    result = worse(image_corruption, image)
    assert result.dtype == dtype
    assert torch.equal(result, worse(image_corruption, image.float()).to(dtype))


def test_mixed_precision_does_not_reach_it(image_corruption):
    image = images((2, 1, 24, 20))
    expected = worse(image_corruption, image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(worse(image_corruption, image), expected)


def test_inference_mode_and_memory_layout_change_nothing(image_corruption):
    image = images((3, 3, 24, 20))
    expected = worse(image_corruption, image)
    with torch.inference_mode():
        assert torch.equal(worse(image_corruption, image), expected)
    channels_last = image.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(worse(image_corruption, channels_last), expected)
    flipped = image.transpose(2, 3).contiguous().transpose(2, 3)
    torch.testing.assert_close(worse(image_corruption, flipped), expected)


@pytest.mark.parametrize("shape", [*SHAPES, (9, 1, 128, 96)], ids=str)
def test_an_image_is_corrupted_alike_in_any_batch(image_corruption, shape):
    image, its_seeds = images(shape), seeds(shape[0])
    whole = worse(image_corruption, image)
    for rows in ([2, 0], [1], [0, 0, 2]):
        assert torch.equal(
            worse(image_corruption, image[rows], its_seeds=its_seeds[rows]), whole[rows]
        )


def test_a_sample_is_corrupted_alike_in_any_batch(corruption):
    batch, its_seeds = multimodal(), seeds(6)
    whole = columns(corruption(batch, corruption.severities[2], its_seeds, MANIFEST))
    for rows in ([5, 0], [1], [3, 3]):
        part = corruption(batch.select(rows), corruption.severities[2], its_seeds[rows], MANIFEST)
        for name, values in columns(part).items():
            assert same(values, whole[name][rows]), name


def test_draws_by_the_seed_alone_or_not_at_all(corruption):
    batch = multimodal().select([2] * 12)
    its_seeds = seeds(12)
    its_seeds[1] = its_seeds[0]
    found = columns(corruption(batch, corruption.severities[3], its_seeds, MANIFEST))
    assert all(same(v[0], v[1]) for v in found.values())
    differs = any(not same(v[0], v[row]) for v in found.values() for row in range(2, 12))
    assert differs == (corruption.name not in FIXED)


def test_further_images_draw_on_their_own(image_corruption):
    if image_corruption.name in FIXED:
        pytest.skip("draws nothing")
    image = images((2, 1, 24, 20))
    batch = dataclasses.replace(batch_of(image), more_images={"again": image})
    result = image_corruption(batch, image_corruption.severities[2], seeds(2), MANIFEST)
    assert not torch.equal(result.more_images["again"], result.image)


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 16, 16), (2, 2, 4, 8, 8)], ids=str)
@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_flat_images_give_numbers(image_corruption, shape, level):
    flat = torch.full(shape, level)
    for severity in (1, 5):
        result = worse(image_corruption, flat, severity)
        assert result.isfinite().all()
        if image_corruption.name in KEEPS_FLAT:
            torch.testing.assert_close(result, flat, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "shape", [(2, 1, 1, 1), (2, 1, 3, 5), (1, 1, 1, 7), (1, 1, 1, 2, 3)], ids=str
)
def test_tiny_images_do_not_break_it(image_corruption, shape):
    for severity in SEVERITIES:
        result = worse(image_corruption, images(shape), severity)
        assert result.shape == shape
        assert result.isfinite().all()


def test_no_samples_and_no_images_are_cases(corruption):
    empty = multimodal().select([])
    result = corruption(empty, corruption.severities[0], seeds(0), MANIFEST)
    assert all(len(values) == 0 for values in columns(result).values())
    batch = dataclasses.replace(multimodal(), image=torch.zeros(6, 0), more_images={})
    result = corruption(batch, corruption.severities[0], seeds(6), MANIFEST)
    assert result.image.shape == (6, 0)


def test_refuses_missing_seeds(corruption):
    with pytest.raises(ValueError, match=r"\(2,\) seeds for 6 samples"):
        corruption(multimodal(), corruption.severities[0], seeds(2), MANIFEST)


@pytest.fixture(scope="module")
def x_rays(real_data) -> torch.Tensor:
    """(8, 1, 128, 128) of NIH ChestX-ray14."""
    files = sorted((real_data / "nih_chestxray14/images_001/images").glob("*.png"))[:8]
    pixels = [np.asarray(Image.open(f).convert("L").resize((128, 128))) for f in files]
    return torch.from_numpy(np.stack(pixels)).float().div(255)[:, None]


def test_each_severity_is_worse_on_real_x_rays(image_corruption, x_rays):
    psnr = []
    for severity in SEVERITIES:
        error = (worse(image_corruption, x_rays, severity) - x_rays).square().mean(dim=(1, 2, 3))
        psnr.append(float((-10 * error.log10()).mean()))
    assert all(mild > strong for mild, strong in pairwise(psnr)), psnr
    assert psnr[0] < 50
    assert psnr[-1] > 3
    assert all(map(math.isfinite, psnr))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same(corruption):
    batch = multimodal()
    expected = columns(corruption(batch, corruption.severities[2], seeds(6), MANIFEST))
    found = columns(corruption(batch.to("cuda"), corruption.severities[2], seeds(6), MANIFEST))
    for name, values in found.items():
        assert values.device.type == "cuda"
        torch.testing.assert_close(
            values.cpu(), expected[name], atol=2e-4, rtol=1e-4, equal_nan=True
        )
