"""Patches against MONAI's sliding window, against the computation in one piece, and in training."""

from pathlib import Path

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, Split, TaskName
from trustsweep.data_pipelines.streams import Samples
from trustsweep.distributed.workers.fidelity import CLEAN
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.attacks import ScoreVictim, adversary
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.patches import Patches
from trustsweep.trainables.registry import METHODS

torch.set_num_threads(1)
CASES = [
    ((21, 34), 16, 0.5),
    ((16, 40), 16, 0.25),
    ((50, 9), 12, 0.0),
    ((33, 20), 10, 0.7),
    ((13, 20, 11), 8, 0.5),
    ((6, 20, 24), 8, 0.3),
]
every_case = pytest.mark.parametrize(("spatial", "size", "overlap"), CASES, ids=str)
METHOD_NAMES = ["unet", "evidential-unet"]


def network(dims: int, outputs: int = 2) -> nn.Module:
    """Its output at a pixel depends on the pixels beside it and on how far the border is."""
    torch.manual_seed(0)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    return nn.Sequential(
        convolution(1, 4, 3, padding=1), nn.Tanh(), convolution(4, outputs, 5, padding=2)
    ).double()


def images(spatial: tuple[int, ...], size: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand((size, 1, *spatial), generator=generator, dtype=torch.float64)


def oracle(patches: Patches, net: nn.Module, image: torch.Tensor) -> torch.Tensor:
    shape = patches.shape(image.shape[2:])
    found = sliding_window_inference(
        image, shape, sw_batch_size=1, predictor=net, overlap=patches.overlap, mode="gaussian"
    )
    assert isinstance(found, torch.Tensor)
    return found


@every_case
def test_it_is_monais_sliding_window(spatial, size: int, overlap: float) -> None:
    patches, net, image = Patches(size, overlap, 0.5), network(len(spatial)), images(spatial)
    with torch.no_grad():
        found = patches.stitched(net, image)
        # MONAI's weights are float32.
        torch.testing.assert_close(found, oracle(patches, net, image), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("spatial", [(21, 34), (6, 9, 11)])
def test_an_image_no_larger_than_a_patch_is_taken_whole(spatial: tuple[int, ...]) -> None:
    net, image = network(len(spatial)), images(spatial)
    assert torch.equal(Patches(max(spatial), 0.5, 0.5).stitched(net, image), net(image))


@every_case
def test_the_gradient_is_that_of_the_computation_in_one_piece(
    spatial, size: int, overlap: float
) -> None:
    """Σ w f(x) / Σ w written out, every window kept; of the image, and of the weights."""
    patches, net, image = Patches(size, overlap, 0.5), network(len(spatial)), images(spatial)
    image.requires_grad_()
    weight = patches.weights(spatial)
    over = torch.zeros(spatial, dtype=torch.float64)
    parts = []
    for window in patches.windows(spatial):
        beside = [(w.start, n - w.stop) for w, n in zip(window, spatial, strict=True)]
        padding = [side for pair in reversed(beside) for side in pair]
        parts.append(nn.functional.pad(weight * net(image[(..., *window)]), padding))
        over[window] += weight
    expected = torch.stack(parts).sum(0) / over
    found = patches.stitched(net, image)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    each = [image, *net.parameters()]
    towards = torch.rand_like(found)
    gradients = [torch.autograd.grad((out * towards).sum(), each) for out in (found, expected)]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def kept_bytes(patches: Patches, net: nn.Module, image: torch.Tensor) -> int:
    """What a forward pass keeps for the gradient, each memory once."""
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        patches.stitched(net, image.requires_grad_())
    return sum(storages.values())


def test_what_is_kept_for_the_gradient_does_not_grow_with_what_a_window_computes() -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Tanh(), nn.Conv2d(64, 1, 3, padding=1))
    small, large = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 128, 128)
    cut, whole = Patches(16, 0.0, 0.5), Patches(128, 0.0, 0.5)
    assert kept_bytes(cut, wide, large) < 0.1 * kept_bytes(whole, wide, large)
    # Beside what a window needs, image and output alone.
    beside = 3 * large.numel() * 4
    assert kept_bytes(cut, wide, large) < kept_bytes(whole, wide, small) + beside


class Ramp(nn.Module):
    """From −1 at a window's left border to 1 at its right: neighbours disagree everywhere."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.linspace(-1, 1, image.shape[-1], dtype=image.dtype).expand_as(image)


def test_no_seam_is_left_where_a_window_ends() -> None:
    """Where a window ends, the output steps by no more than the ramp itself does there."""
    image = torch.zeros(1, 1, 64, 512, dtype=torch.float64)
    steps = {}
    for overlap in (0.0, 0.5):
        out = Patches(64, overlap, 0.5).stitched(Ramp(), image)[0, 0, 32]
        steps[overlap] = out.diff().abs()
    ends = torch.arange(63, 448, 64)  # from a window's last pixel to another's first
    torch.testing.assert_close(steps[0.0][ends], torch.full((len(ends),), 2.0, dtype=torch.float64))
    slope = 2 / 63
    assert float(steps[0.5][ends].max()) < slope + 0.005
    # In between, one window fades out and the next in, over half a window.
    assert float(steps[0.5].max()) < 0.12


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_flat_image_gives_flat_maps_far_from_its_borders(name: str) -> None:
    """Of a network without normalisation over the image: what differs is where a window ends."""
    model = method(name, (1, 96, 96), patch_size=32)
    net = network(2, 2 if name == "evidential-unet" else 1).float()
    flat = batch((1, 96, 96)).with_image(torch.full((2, 1, 96, 96), 0.6))
    with torch.no_grad():
        prediction = model.predict(net, flat)
    for values in (prediction.probability[:, 0], *prediction.uncertainty.values()):
        inner = values[:, 24:72, 24:72]
        steps = torch.cat([inner.diff(dim=d).abs().flatten() for d in (1, 2)])
        assert float(steps.max()) < 0.02 * float(values.abs().max())


def manifest(shape: tuple[int, ...], **changes: object) -> Manifest:
    fields = {
        "name": "toy",
        "tasks": (TaskName.SEGMENTATION,),
        "image_shape": shape,
        "image_scale": 1.0,
        "classes": ("background", "lesion"),
        "mean": (0.4,),
        "std": (0.2,),
        "split_counts": {},
        "columns": {},
        "fingerprint": "0",
    }
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


def method(name: str, shape: tuple[int, ...], **given: float):
    config = Space([name], {}).defaults(name, **{"width": 4, **given})
    return METHODS[name](config, manifest(shape))


def batch(shape: tuple[int, ...], size: int = 2) -> Batch:
    """Bright cubes on a noisy ground."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(size, 1, *shape[1:])
    mask[(..., *(slice(n // 3, n // 3 + 6) for n in shape[1:]))] = 1
    image = (0.4 * torch.rand((size, *shape), generator=generator) + 0.4 * mask).clamp(0, 1)
    return Batch(sample_id=tuple(map(str, range(size))), image=image, mask=mask)


@pytest.mark.parametrize("shape", [(1, 40, 52), (1, 20, 26, 18)], ids=["2d", "3d"])
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_method_predicts_blends_and_is_attacked_as_a_whole(name: str, shape) -> None:
    model = method(name, shape, patch_size=16)
    torch.manual_seed(0)
    net, data = model.network().eval(), batch(shape)
    with torch.no_grad():
        prediction = model.predict(net, data)
        # Scores and maps are of one blended output.
        blended = oracle(model.patches, net, data.image)
        again = method(name, shape).predict(Given(blended), data)
    torch.testing.assert_close(prediction.scores, again.scores, atol=1e-5, rtol=1e-4)
    for kind, values in prediction.uncertainty.items():
        torch.testing.assert_close(values, again.uncertainty[kind], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(prediction.scores, method(name, shape).predict(net, data).scores)
    victim = ScoreVictim(model, net)
    worse = adversary("fast", model, net, steps=2)(data, 0.05, seeds=torch.arange(len(data)))
    moved = (worse.image - data.image).abs()
    assert 0 < float(moved.max()) <= 0.05 + 1e-6
    # In every patch, not in one alone.
    assert all(bool(moved[(..., *w)].any()) for w in model.patches.windows(shape[1:]))
    with torch.no_grad():
        assert bool((victim.loss(worse) > victim.loss(data)).all())


class Given(nn.Module):
    """A network that gives a known output."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.output


def test_patches_as_large_as_the_image_change_nothing() -> None:
    data = batch((1, 24, 24))
    plain, cut = method("unet", (1, 24, 24)), method("unet", (1, 24, 24), patch_size=24)
    net = plain.network().eval()
    assert torch.equal(plain.predict(net, data).scores, cut.predict(net, data).scores)
    assert cut.patches.sample(data, torch.arange(2)) is data
    losses = [m.loss(net, data, Progress(0, 1)).total for m in (plain, cut)]
    assert torch.equal(*losses)


# Sampling


def numbered(mask: torch.Tensor) -> Batch:
    """Images whose pixels are numbered, so that a patch tells its place."""
    size, _, *spatial = mask.shape
    places = torch.arange(torch.Size(spatial).numel(), dtype=torch.float32).view(1, 1, *spatial)
    ids = tuple(map(str, range(size)))
    return Batch(sample_id=ids, image=places.expand(size, -1, *spatial).clone(), mask=mask)


def corners(found: Batch, spatial: tuple[int, ...]) -> list[tuple[int, ...]]:
    first = found.image[(slice(None), 0, *[0] * len(spatial))].long()
    return list(zip(*(axis.tolist() for axis in torch.unravel_index(first, spatial)), strict=True))


@pytest.mark.parametrize("spatial", [(30, 44), (12, 20, 16)])
def test_a_patch_is_cut_out_of_image_and_mask_alike(spatial: tuple[int, ...]) -> None:
    mask = (torch.rand(6, 1, *spatial, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    data, patches = numbered(mask), Patches(10, 0.5, 0.5)
    found = patches.sample(data, torch.arange(6))
    shape = tuple(min(10, n) for n in spatial)
    assert found.image.shape == (6, 1, *shape)
    assert found.sample_id == data.sample_id
    for row, corner in enumerate(corners(found, spatial)):
        index = (row, ..., *(slice(c, c + n) for c, n in zip(corner, shape, strict=True)))
        assert torch.equal(found.image[row], data.image[index])
        assert torch.equal(found.mask[row], mask[index])


def test_a_sample_s_seed_alone_says_where() -> None:
    mask = torch.zeros(4, 1, 30, 44)
    mask[:, :, 5:9, 30:40] = 1
    data, patches = numbered(mask), Patches(10, 0.5, 0.5)
    seeds = torch.tensor([3, 7, 7, 11])
    together = corners(patches.sample(data, seeds), (30, 44))
    assert together[1] == together[2]
    for row in range(4):
        alone = patches.sample(data.select([row]), seeds[row : row + 1])
        assert corners(alone, (30, 44)) == [together[row]]
    assert corners(patches.sample(data, seeds + 1), (30, 44)) != together


def shares(mask: torch.Tensor, foreground: float, draws: int = 600) -> torch.Tensor:
    """How often the patch holds something of each channel of a mask."""
    data = numbered(mask.expand(draws, *mask.shape[1:]).clone())
    found = Patches(8, 0.5, foreground).sample(data, torch.arange(draws))
    return (found.mask > 0.5).flatten(2).any(2).float().mean(0)


def test_so_many_patches_lie_around_foreground() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, 40:42, 20:22] = 1
    assert float(shares(mask, 1.0)) == 1
    # Anywhere: 9 of 57 starts along either side hold some of it.
    chance = (9 / 57) ** 2
    for foreground in (0.0, 0.5):
        expected = foreground + (1 - foreground) * chance
        deviation = (expected * (1 - expected) / 600) ** 0.5
        assert float(shares(mask, foreground)) == pytest.approx(expected, abs=4 * deviation)
    assert float(shares(torch.zeros(1, 1, 64, 64), 1.0)) == 0


def test_rare_regions_and_classes_come_as_often_as_common_ones() -> None:
    """Far apart, so that a patch holds one of them: half of the patches each."""
    regions = torch.zeros(1, 3, 64, 64)
    regions[:, 0, 2:30, 2:30] = 1
    regions[:, 2, 60, 60] = 1
    found = shares(regions, 1.0)
    assert found[1] == 0
    assert found[[0, 2]].tolist() == pytest.approx([0.5, 0.5], abs=4 * (0.25 / 600) ** 0.5)
    classes = regions[:, :1] + 2 * regions[:, 2:]
    data = numbered(classes.expand(600, -1, -1, -1).clone())
    of_two = Patches(8, 0.5, 1.0).sample(data, torch.arange(600)).mask == 2
    share = float(of_two.flatten(1).any(1).float().mean())
    assert share == pytest.approx(0.5, abs=4 * (0.25 / 600) ** 0.5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"patch_size": -1}, "'patch_size' must be a whole number from 0"),
        ({"patch_overlap": 1.0}, "'patch_overlap' is 1.0, outside"),
        ({"patch_foreground": 1.5}, "'patch_foreground' is 1.5, outside"),
    ],
)
def test_bad_value_is_named(given: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        method("unet", (1, 24, 24), **given)


def test_without_a_size_images_are_taken_whole() -> None:
    assert method("unet", (1, 24, 24)).patches is None
    assert Patches.of({}) is None


def test_a_training_on_patches_learns_and_repeats(tmp_path: Path) -> None:
    """X-rays of 64 pixels by patches of 32: what is trained on them finds lesions in whole ones."""
    prepare(None, "phantoms", tmp_path / "data", size=64, count=80)
    train, test = (Samples.read(tmp_path / "data", split) for split in (Split.TRAIN, Split.TEST))
    described = Manifest.load(tmp_path / "data")
    given = {"patch_size": 32, "epochs": 8, "batch_size": 8, "width": 8, "regime": "none",
             "corruption_fraction": 0.0, "learning_rate": 5e-3}  # fmt: skip
    config = Space(["unet"], given).defaults("unet")
    seen: list[tuple[int, ...]] = []
    runs = []
    for _ in range(2):
        training = Training(config, described, EvaluationPlan())
        training.network.register_forward_pre_hook(lambda _, at: seen.append(tuple(at[0].shape)))
        losses = [training.epoch(train)["train.loss"] for _ in range(config["epochs"])]
        assert {shape[2:] for shape in seen} == {(32, 32)}
        runs.append((losses, training.evaluate(test, CLEAN, batch_size=8).compute()))
    assert runs[0] == runs[1]
    losses, found = runs[0]
    assert losses[-1] < losses[0]
    assert found["clean.dice_lesion"] > 0.2


def test_samples_do_not_see_each_other() -> None:
    model = method("evidential-unet", (1, 40, 52), patch_size=16)
    net, data = model.network().eval(), batch((1, 40, 52), 3)
    together = model.scores(net, data)[1:2]
    torch.testing.assert_close(together, model.scores(net, data.select([1])), atol=1e-5, rtol=1e-4)
