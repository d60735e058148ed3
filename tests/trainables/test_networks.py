"""What every registered network promises, at the defaults of its space but narrow."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save, save_file
from torch import nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.attacks import ScoreVictim
from trustsweep.trainables.attacks.ensemble import make_ensemble
from trustsweep.trainables.contract import Method, Progress
from trustsweep.trainables.networks import Standardise, load_encoder
from trustsweep.trainables.networks.densenet import Halve
from trustsweep.trainables.networks.fcn import Scores
from trustsweep.trainables.networks.layers import Smooth, resized
from trustsweep.trainables.registry import METHODS, NETWORKS

torch.set_num_threads(1)
SHAPES = {"2d": (1, 37, 45), "2d-rgb": (3, 24, 17), "3d": (2, 13, 9, 18), "small": (1, 28, 28)}
#: Wide enough that groups of channels have several.
WIDTH = 8

every = pytest.mark.parametrize("name", NETWORKS)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
PIXELS = [name for name in NETWORKS if NETWORKS.fact(name, "kind") == "pixels"]
METHOD = {"pixels": "unet", "images": "classifier"}
#: Values of a network's own parameters beside the defaults.
VARIANTS = [
    ("dynunet", {"levels": 3}),
    ("dynunet", {"residual": True}),
    ("fcn", {"convolutions": 2, "depth": 2}),
    ("deeplabv3", {"dilation": 1, "depth": 1}),
    ("densenet", {"stem": 1}),
    ("densenet", {"stem": 4, "blocks": 2, "layers": 3, "growth": 6}),
    ("vit", {"vit_patch": 5, "vit_heads": 3}),
    ("vit", {"vit_patch": 64}),
]


def manifest(shape: tuple[int, ...] = SHAPES["2d"], **changes: object) -> Manifest:
    fields = {
        "name": "toy",
        "tasks": (TaskName.SEGMENTATION, TaskName.CLASSIFICATION),
        "image_shape": shape,
        "image_scale": 1.0,
        "classes": ("background", "lesion"),
        "mean": (0.4,) * shape[0],
        "std": (0.2,) * shape[0],
        "split_counts": {},
        "columns": {},
        "fingerprint": "0",
    }
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


def config(name: str, **given: float) -> dict[str, object]:
    """Of the method that the network is for."""
    method = METHOD[NETWORKS.fact(name, "kind")]
    found = Space([method], {}).defaults(method, **{"network": name, "width": WIDTH, **given})
    return {"label_smoothing": 0.0, **found, "dropout": given.get("dropout", 0.0)}


def network_of(
    name: str, described: Manifest, outputs: int = 2, seed: int = 0, **given: float
) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = NETWORKS[name](config(name, **given), described).build(outputs)
    return network


def images(shape: tuple[int, ...], size: int = 3) -> torch.Tensor:
    return torch.rand((size, *shape), generator=torch.Generator().manual_seed(0))


def output_shape(name: str, shape: tuple[int, ...], size: int = 3, outputs: int = 2) -> tuple:
    spatial = shape[1:] if NETWORKS.fact(name, "kind") == "pixels" else ()
    return (size, outputs, *spatial)


GOLDEN = {
    ("unet", (1, 16, 16)): ("4df21828f8b72356", (-0.583942, -0.484316, 0.317640), 0.398118),
    ("unet", (3, 19, 34)): ("0083b8a049a995d7", (0.901272, 0.751543, 0.270807), 0.332889),
    ("unet", (1, 9, 16, 12)): ("31ac4fd69d4754bd", (0.105008, -0.000507, -0.184771), 0.237782),
    ("resnet", (1, 16, 16)): ("b9103c4b66b51e6e", (0.434286, -0.063779, 0.084163), 0.220836),
    ("resnet", (3, 19, 34)): ("c77135f3f8530d5b", (-0.354239, -0.169850, 0.212009), 0.407145),
    ("resnet", (1, 9, 16, 12)): ("1203d1df32fe382a", (0.374049, -0.319174, -0.454812), 0.420951),
}


@pytest.mark.parametrize(("name", "shape"), GOLDEN)
def test_the_defaults_are_the_networks_from_before_there_was_a_choice(name, shape) -> None:
    """Names, shapes and figures written down then: checkpoints stay readable."""
    digest, ends, deviation = GOLDEN[name, shape]
    network = network_of(name, manifest(shape), width=4).eval()
    names = "\n".join(f"{key} {tuple(t.shape)}" for key, t in network.state_dict().items())
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == digest
    image = torch.linspace(0, 1, 2 * torch.Size(shape).numel()).view(2, *shape).sin()
    output = network(image).detach()
    assert output.flatten()[[0, 1, -1]].tolist() == pytest.approx(ends, abs=1e-4)
    assert output.double().std().item() == pytest.approx(deviation, abs=1e-4)


@pytest.mark.parametrize("method", ["unet", "evidential-unet", "classifier"])
def test_a_method_whose_config_names_no_network_has_its_default(method: str) -> None:
    found = Space([method], {}).defaults(method)
    assert found["network"] == {"classifier": "resnet"}.get(method, "unet")
    states = []
    for given in (found, {k: v for k, v in found.items() if k != "network"}):
        torch.manual_seed(0)
        states.append(METHODS[method](given, manifest()).network().state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@every_shape
@every
def test_outputs_have_the_size_of_their_kind(name: str, shape: tuple[int, ...]) -> None:
    network = network_of(name, manifest(shape))
    output = network(images(shape))
    assert output.shape == output_shape(name, shape)
    assert bool(output.isfinite().all())
    # Early rungs of a search have smaller images than the manifest's.
    smaller = (shape[0], *(max(4, side // 2) for side in shape[1:]))
    assert network(images(smaller)).shape == output_shape(name, smaller)


@pytest.mark.parametrize(("name", "given"), VARIANTS, ids=str)
def test_parameters_of_its_own_change_it(name: str, given: dict[str, int]) -> None:
    shape = SHAPES["2d"]
    network, usual = network_of(name, manifest(), **given), network_of(name, manifest())
    assert network(images(shape)).shape == output_shape(name, shape)
    sizes = [[tuple(p.shape) for p in n.parameters()] for n in (network, usual)]
    # Neither a dilation nor a stride is a weight.
    if name != "deeplabv3" or given["depth"] != 3:
        assert sizes[0] != sizes[1]


@every_shape
@every
def test_an_image_moves_no_other_one_even_in_training(name: str, shape: tuple[int, ...]) -> None:
    network = network_of(name, manifest(shape)).train()
    image = images(shape).requires_grad_()
    together = network(image)
    torch.testing.assert_close(together[1:2], network(image[1:2]), atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(together[0].square().sum(), image)
    assert float(gradient[0].abs().sum()) > 0
    assert not bool(gradient[1:].any())


@every
def test_it_standardises_first(name: str) -> None:
    """The image alone is scaled: nothing else reads it, and the statistics travel with it."""
    shape = (2, 24, 17)
    described = manifest(shape, mean=(0.3, 0.6), std=(0.1, 0.25))
    network = network_of(name, described).eval()
    plain = network_of(name, manifest(shape, mean=(0.0, 0.0), std=(1.0, 1.0))).eval()
    image = images(shape)
    standardised = Standardise((0.3, 0.6), (0.1, 0.25), 2)(image)
    torch.testing.assert_close(network(image), plain(standardised), atol=1e-5, rtol=1e-4)


@every_shape
@every
def test_every_pixel_and_every_weight_has_a_gradient(name: str, shape: tuple[int, ...]) -> None:
    network = network_of(name, manifest(shape)).train()
    image = images(shape).requires_grad_()
    network(image).square().sum().backward()
    assert image.grad is not None
    assert float((image.grad != 0).float().mean()) > 0.99
    missing = [n for n, p in network.named_parameters() if p.grad is None]
    assert missing == []


@every
def test_it_repeats_and_draws_at_its_start_alone(name: str) -> None:
    shape = SHAPES["2d"]
    one, two, other = (network_of(name, manifest(), seed=seed).eval() for seed in (0, 0, 1))
    image = images(shape)
    assert torch.equal(one(image), one(image))
    assert torch.equal(one(image), two(image))
    assert not torch.equal(one(image), other(image))


@every
def test_weights_and_statistics_travel_as_safetensors(name: str) -> None:
    """None has a second name, which the format refuses."""
    network, other = network_of(name, manifest()).eval(), network_of(name, manifest(), seed=1)
    other.load_state_dict(load(save(network.state_dict())))
    image = images(SHAPES["2d"])
    assert torch.equal(network(image), other.eval()(image))


@every
def test_an_encoder_lends_all_but_the_layer_of_its_outputs(name: str, tmp_path: Path) -> None:
    lent, network = network_of(name, manifest(), outputs=5), network_of(name, manifest(), seed=1)
    save_file(lent.state_dict(), tmp_path / "weights.safetensors")
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    load_encoder(network, tmp_path / "weights.safetensors")
    theirs = dict(lent.named_parameters())
    kept = [n for n, p in network.named_parameters() if not torch.equal(p, theirs[n])]
    assert len({n.rpartition(".")[0] for n in kept}) == 1
    assert all(torch.equal(dict(network.named_parameters())[n], before[n]) for n in kept)


@pytest.mark.parametrize("name", ["fcn", "deeplabv3"])
def test_a_classifier_lends_its_units_to_heads_for_pixels(name: str, tmp_path: Path) -> None:
    shared = {"depth": 3, "convolutions": 2}
    lent = network_of("resnet", manifest(), **shared)
    save_file(lent.state_dict(), tmp_path / "weights.safetensors")
    network = network_of(name, manifest(), seed=1, **shared)
    load_encoder(network, tmp_path / "weights.safetensors")
    theirs = dict(lent.named_parameters())
    for key, mine in network.named_parameters():
        assert (key in theirs and torch.equal(mine, theirs[key])) == (key[0] in "123"), key


@pytest.mark.parametrize(("one", "another"), [("unet", "segresnet"), ("resnet", "densenet")])
def test_a_file_of_another_family_is_refused(one: str, another: str, tmp_path: Path) -> None:
    save_file(network_of(one, manifest()).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="holds no weight of this network"):
        load_encoder(network_of(another, manifest()), tmp_path / "weights.safetensors")


def method_of(name: str, method: str, **given: float) -> Method:
    found = Space([method], {}).defaults(method, **{"network": name, "width": WIDTH, **given})
    made: Method = METHODS[method](found, manifest((1, 20, 28)))
    return made


def toy(size: int = 6) -> Batch:
    """Bright squares on a noisy ground; every other image has none."""
    image = 0.4 * images((1, 20, 28), size)
    mask = torch.zeros(size, 1, 20, 28)
    for row in range(0, size, 2):
        mask[row, 0, row : row + 8, 6:16] = 1
    label = (mask.flatten(1).sum(1) > 0).long()
    ids = tuple(map(str, range(size)))
    return Batch(sample_id=ids, image=(image + 0.4 * mask).clamp(0, 1), mask=mask, label=label)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (method, name)
        for method in METHODS
        if (choice := Space([method], {}).of(method).get("network")) is not None
        for name in choice.among or ()
    ],
)
def test_its_methods_learn_with_it_and_are_attacked(method: str, name: str) -> None:
    model = method_of(name, method)
    torch.manual_seed(0)
    network = model.network().train()
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(25):
        loss = model.loss(network, toy(), Progress(3, 6)).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    network.eval()
    data = toy()
    worse = make_ensemble("fast", model, network, steps=3)(data, 0.1, torch.arange(len(data)))
    moved = (worse.image - data.image).abs()
    assert 0 < float(moved.max()) <= 0.1 + 1e-6
    victim = ScoreVictim(model, network)
    with torch.no_grad():
        assert float(victim.loss(worse).sum()) > float(victim.loss(data).sum())
    with torch.autocast("cpu", torch.bfloat16):
        near = model.loss(network, data, Progress(3, 6)).total
    exact = model.loss(network, data, Progress(3, 6)).total
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=0.2, abs=0.02)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in PIXELS])
def test_dropout_is_drawn_in_training_alone(name: str) -> None:
    network = network_of(name, manifest(), dropout=0.5)
    image = images(SHAPES["2d"])
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("dynunet", {"levels": 2}, "'levels' must be a whole number from 3 up"),
        ("dynunet", {"residual": 1}, "'residual' must be true or false"),
        ("densenet", {"stem": 3}, "'stem' is 3; choose 1, 2 or 4"),
        ("densenet", {"growth": 0}, "'growth' must be a whole number"),
        ("vit", {"vit_heads": 0}, "'vit_heads' must be a whole number"),
        ("deeplabv3", {"dilation": 0.5}, "'dilation' must be a whole number"),
        ("fcn", {"convolutions": 3}, "'convolutions' is 3, above 2"),
    ],
)
def test_bad_value_is_named(name: str, given: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NETWORKS[name]({**config(name), **given}, manifest())


@pytest.mark.parametrize(
    ("method", "name"), [("unet", "resnet"), ("classifier", "segresnet"), ("unet", "unett")]
)
def test_a_network_of_another_kind_is_refused(method: str, name: str) -> None:
    found = Space([method], {}).defaults(method)
    with pytest.raises(UserError, match=rf"config: 'network' is '{name}'.*Known: "):
        METHODS[method]({**found, "network": name}, manifest())
    with pytest.raises(UserError, match=r"space\.network"):
        Space([method], {"network": name})


def test_scores_are_those_of_all_features_on_the_finest_grid() -> None:
    torch.manual_seed(0)
    head = Scores([3, 5, 7], outputs=2).double()
    sides = (16, 8, 4)
    features = [
        torch.rand(2, c, n, n, dtype=torch.float64) for c, n in zip((3, 5, 7), sides, strict=True)
    ]
    # Twice by 2, as the scores go, is not once by 4.
    raised = [features[0], resized(features[1], (16, 16))]
    raised.append(resized(resized(features[2], (8, 8)), (16, 16)))
    joined = torch.cat(raised, dim=1).movedim(1, -1)
    expected = nn.functional.linear(joined, head.weight, head.bias).movedim(-1, 1)
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize("shape", [(6, 8), (4, 6, 8)])
def test_halving_is_average_pooling(shape: tuple[int, ...]) -> None:
    features = torch.rand(2, 3, *shape)
    pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[len(shape)](2)
    torch.testing.assert_close(Halve()(features), pool(features))


def test_positions_are_those_learned_and_between_them_in_images_of_another_size() -> None:
    network = network_of("vit", manifest((1, 32, 24)), vit_patch=8).eval()
    transformer = network[2]  # type: ignore[index]
    seen: list[torch.Tensor] = []
    transformer.blocks.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        for parameter in transformer.enter.parameters():
            parameter.zero_()
        network(images((1, 32, 24), 1))
        network(images((1, 64, 48), 1))
    learned = transformer.positions.detach()
    torch.testing.assert_close(seen[0][:, 1:].transpose(1, 2), learned.flatten(2))
    between = nn.functional.interpolate(learned, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(seen[1][:, 1:].transpose(1, 2), between.flatten(2))


@pytest.mark.parametrize("shape", [(6, 8), (5, 1, 7)])
def test_smoothing_keeps_what_is_flat_and_takes_away_a_grid(shape: tuple[int, ...]) -> None:
    flat = torch.full((1, 2, *shape), 0.7)
    torch.testing.assert_close(Smooth()(flat), flat)
    grid = (-1.0) ** torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).sum(0)
    inner = Smooth()(grid[None, None])[(..., *(slice(1, max(n - 1, 1)) for n in shape))]
    torch.testing.assert_close(inner, torch.zeros_like(inner))
