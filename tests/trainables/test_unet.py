"""The U-Nets' own promises; what every method promises is in test_method_contract.py."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from checkerboard import nyquist_share, smooth_unet, smoothed, transposed_unet, truth_shares

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, Split, TaskName
from trustsweep.data_pipelines.streams import Samples
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.contract import Progress
from trustsweep.trainables.networks import LinearUpsample, PadToMultiple, Standardise
from trustsweep.trainables.networks.unet import SmoothUNet
from trustsweep.trainables.registry import METHODS, NETWORKS, RISKS
from trustsweep.trainables.unet import ClassicalUNet, EvidentialUNet

torch.set_num_threads(1)
CONFIG = {
    "width": 4,
    "dice_weight": 0.5,
    "ace_weight": 0.0,
    "risk": "cross-entropy",
    "kl_weight": 0.1,
    "kl_anneal_epochs": 10,
}
START, END = Progress(0, 20), Progress(10, 20)


def manifest(shape: tuple[int, ...] = (1, 16, 16), **changes: object) -> Manifest:
    fields = {
        "name": "toy",
        "tasks": (TaskName.SEGMENTATION,),
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


def batch(shape: tuple[int, ...] = (1, 16, 16), size: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((size, *shape), generator=generator)
    # Regions, as lesions are, not single pixels.
    mask = (F.avg_pool2d(image[:, :1], 5, stride=1, padding=2) > 0.5).float()
    return Batch(sample_id=tuple(map(str, range(size))), image=image, mask=mask)


class Fixed(torch.nn.Module):
    """A network whose raw output does not depend on the image."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = torch.nn.Parameter(output)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.output.view(1, -1, 1, 1).expand(len(image), -1, *image.shape[2:])


def evidence(value: float) -> float:
    """The raw output whose softplus is `value`."""
    return math.log(math.expm1(value))


def test_standardise_gives_zero_mean_and_unit_deviation_per_channel() -> None:
    image = torch.rand(8, 2, 9, 9) * torch.tensor([1.0, 0.1]).view(1, 2, 1, 1)
    mean, std = image.mean((0, 2, 3)).tolist(), image.std((0, 2, 3)).tolist()
    out = Standardise(mean, std, spatial_dims=2)(image)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(2))


def test_standardise_centres_a_constant_channel() -> None:
    out = Standardise([0.5], [0.0], spatial_dims=2)(torch.full((1, 1, 4, 4), 0.5))
    assert out.tolist() == torch.zeros(1, 1, 4, 4).tolist()


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (5, 3)])
def test_padding_gives_the_size_back_and_repeats_edges(size: tuple[int, int]) -> None:
    seen = []

    class Spy(torch.nn.Identity):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            seen.append(input)
            return input

    image = torch.rand(2, 1, *size)
    assert torch.equal(PadToMultiple(Spy(), 8)(image), image)
    assert all(n % 8 == 0 and n >= 16 for n in seen[0].shape[2:])
    assert torch.equal(seen[0][..., -1, : size[1]], image[..., -1, :])


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 19, 34), (1, 9, 16, 12)])
def test_output_has_the_image_size(shape: tuple[int, ...]) -> None:
    network = smooth_unet(manifest(shape), width=2, outputs=2)
    assert network(torch.rand(2, *shape)).shape == (2, 2, *shape[1:])


@pytest.mark.parametrize("shape", [(6, 8), (1, 5), (4, 6, 8)])
def test_upsampling_is_linear_interpolation_and_so_is_its_gradient(shape: tuple[int, ...]) -> None:
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    features = torch.rand(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    ours, torchs = LinearUpsample()(features), F.interpolate(features, scale_factor=2, mode=mode)
    torch.testing.assert_close(ours, torchs)
    weights = torch.rand_like(ours)
    gradients = [torch.autograd.grad((out * weights).sum(), features)[0] for out in (ours, torchs)]
    torch.testing.assert_close(*gradients)


def test_the_decoder_costs_no_parameter() -> None:
    counts = [
        sum(p.numel() for p in make(manifest(), 8, 2).parameters())
        for make in (smooth_unet, transposed_unet)
    ]
    assert counts[0] == counts[1]


def test_a_stride_that_interpolation_does_not_undo_is_refused() -> None:
    with pytest.raises(ValueError, match="a stride of 1"):
        SmoothUNet(2, 1, 1, channels=[2, 4, 8], strides=[2, 1])


def test_the_nyquist_share_is_that_of_closed_forms() -> None:
    row = torch.arange(32)
    board = ((row[:, None] + row) % 2).double()
    wave = torch.cos(2 * math.pi * 3 * row / 32).double().expand(32, 32)
    stripes = (row % 2).double().expand(32, 32) - 0.5
    assert nyquist_share(board[None]) == pytest.approx(1)
    assert nyquist_share(wave[None]) == pytest.approx(0, abs=1e-12)
    # Orthogonal, of powers 1/2 and 1/4.
    assert nyquist_share((wave + stripes)[None]) == pytest.approx(1 / 3)
    assert nyquist_share(torch.full((1, 32, 32), 0.3)) == 0


def test_the_smoothed_truth_is_the_mean_of_nine_pixels() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[0, 3, 3] = 1
    expected = torch.zeros(1, 8, 8)
    expected[0, 2:5, 2:5] = 1 / 9
    torch.testing.assert_close(smoothed(mask), expected)


@pytest.fixture(scope="module", params=["phantoms", "lungs"])
def xrays(request, tmp_path_factory) -> tuple[Manifest, Batch, Batch]:
    """64 px: what they are, a few to train on, and others."""
    out = tmp_path_factory.mktemp("data") / request.param
    if request.param == "phantoms":
        prepare(None, "phantoms", out, size=64, count=80)
    else:
        folder = request.getfixturevalue("real_data") / "covid19_cxr_segmentations"
        prepare(folder, "covid-cxr-segmentations", out, size=64, target="lung")
    train, test = (Samples.read(out, split) for split in (Split.TRAIN, Split.TEST))
    return Manifest.load(out), train.batch(range(48)), test.batch(range(len(test)))


def grids(
    name: str,
    make: Callable[[Manifest, int, int], torch.nn.Module],
    xrays: tuple[Manifest, Batch, Batch],
    epochs: int,
) -> dict[str, float]:
    """Nyquist shares of every map, over those of the smoothed truth; of real and constant images.

    The network is trained so many epochs, or not at all.
    """
    described, train, test = xrays
    torch.manual_seed(0)
    model = METHODS[name](CONFIG, described)
    network = make(described, 8, model.outputs)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for epoch in range(epochs):
        for start in range(0, len(train), 8):
            rows = train.select(range(start, start + 8))
            optimiser.zero_grad()
            model.loss(network, rows, Progress(epoch, 20)).total.backward()
            optimiser.step()
    network.eval()
    assert test.mask is not None
    truth = truth_shares(test.mask[:, 0])
    ratios = {}
    for value in (None, 0.0, 0.5):
        image = test.image if value is None else torch.full_like(test.image[:1], value)
        with torch.inference_mode():
            prediction = model.predict(network, test.with_image(image))
        maps = {"probability": prediction.probability[:, 0], **prediction.uncertainty}
        for kind, drawn in maps.items():
            reference = truth["probability" if kind == "probability" else "uncertainty"]
            ratios[f"{kind}, {value}"] = nyquist_share(drawn) / reference
    return ratios


@pytest.mark.parametrize("epochs", [0, 6])
@pytest.mark.parametrize("name", ["unet", "evidential-unet"])
@pytest.mark.parametrize("network", NETWORKS.having(kind="pixels"))
def test_no_map_has_a_checkerboard(xrays, network: str, name: str, epochs: int) -> None:
    def make(described: Manifest, width: int, outputs: int) -> torch.nn.Module:
        config = Space([name], {"width": width}).defaults(name, network=network)
        made: torch.nn.Module = NETWORKS[network](config, described).build(outputs)
        return made

    ratios = grids(name, make, xrays, epochs)
    assert {kind: ratio for kind, ratio in ratios.items() if ratio > 1} == {}


@pytest.mark.parametrize("epochs", [0, 6])
@pytest.mark.parametrize("name", ["unet", "evidential-unet"])
def test_every_map_of_transposed_convolutions_has_one(xrays, name: str, epochs: int) -> None:
    ratios = grids(name, transposed_unet, xrays, epochs)
    assert {kind: ratio for kind, ratio in ratios.items() if ratio <= 1} == {}


def test_samples_do_not_see_each_other_even_in_training_mode() -> None:
    torch.manual_seed(0)
    network = smooth_unet(manifest(), width=4, outputs=1).train()
    image = batch().image
    torch.testing.assert_close(network(image)[1:2], network(image[1:2]), atol=1e-5, rtol=1e-4)


def test_evidential_prediction_is_the_mean_of_the_beta() -> None:
    model = EvidentialUNet(CONFIG, manifest())
    network = Fixed(torch.tensor([evidence(1.7), evidence(0.3)]))
    prediction = model.predict(network, batch())
    # a = 2.7, b = 1.3: the written figures of METHODS section 3.
    torch.testing.assert_close(prediction.probability, torch.full((3, 1, 16, 16), 2.7 / 4))
    torch.testing.assert_close(prediction.uncertainty["vacuity"], torch.full((3, 16, 16), 0.5))
    assert next(iter(prediction.uncertainty)) == "vacuity"


@pytest.mark.parametrize(
    ("risk", "figure"),
    [("type-2", 0.393043), ("cross-entropy", 0.459334), ("squared-error", 0.299)],
)
def test_evidential_loss_is_the_sum_of_its_written_terms(risk: str, figure: float) -> None:
    model = EvidentialUNet({**CONFIG, "risk": risk}, manifest())
    network = Fixed(torch.tensor([evidence(1.7), evidence(0.3)]))
    everything = Batch(
        sample_id=("a",), image=torch.rand(1, 1, 16, 16), mask=torch.ones(1, 1, 16, 16)
    )
    parts = model.loss(network, everything, END).parts
    assert parts["risk"].item() == pytest.approx(figure, abs=1e-5)
    assert parts["kl"].item() == pytest.approx(0.1 * (math.log(1.3) + 1 / 1.3 - 1), abs=1e-6)
    assert parts["dice"].item() == pytest.approx(
        0.5 * (1 - (2 * 256 * 0.675 + 1) / (256 * 1.675 + 1)), abs=1e-5
    )


def test_regulariser_is_annealed() -> None:
    model = EvidentialUNet(CONFIG, manifest())
    network = model.network()
    kl = [model.loss(network, batch(), Progress(e, 20)).parts["kl"].item() for e in (0, 5, 10, 20)]
    assert kl[0] == 0
    assert kl[1] == pytest.approx(kl[2] / 2)
    assert kl[2] == kl[3] > 0


def test_more_evidence_in_total_is_less_vacuity_at_the_same_probability() -> None:
    model = EvidentialUNet(CONFIG, manifest())
    little = model.predict(Fixed(torch.tensor([evidence(1.0), evidence(1.0)])), batch())
    much = model.predict(Fixed(torch.tensor([evidence(99.0), 99.0])), batch())
    torch.testing.assert_close(little.probability, much.probability)
    assert much.uncertainty["vacuity"].max() < little.uncertainty["vacuity"].min()


def test_classical_loss_is_cross_entropy_plus_dice() -> None:
    model = ClassicalUNet(CONFIG, manifest())
    logit = 0.4
    everything = Batch(
        sample_id=("a",), image=torch.rand(1, 1, 16, 16), mask=torch.ones(1, 1, 16, 16)
    )
    parts = model.loss(Fixed(torch.tensor([logit])), everything, START).parts
    p = 1 / (1 + math.exp(-logit))
    assert parts["cross-entropy"].item() == pytest.approx(-math.log(p), abs=1e-6)
    assert parts["dice"].item() == pytest.approx(
        0.5 * (1 - (512 * p + 1) / (256 * (p + 1) + 1)), abs=1e-5
    )
    prediction = model.predict(Fixed(torch.tensor([logit])), everything)
    assert prediction.uncertainty["bernoulli-variance"].mean().item() == pytest.approx(p * (1 - p))


def test_calibration_error_enters_the_loss_with_its_weight() -> None:
    data = batch()
    fixed = Fixed(torch.tensor([0.7]))
    plain, more = (
        ClassicalUNet({**CONFIG, "ace_weight": weight}, manifest()).loss(fixed, data, START)
        for weight in (0.0, 0.5)
    )
    p = torch.tensor(0.7).sigmoid()
    gap = (p - data.mask.flatten(1).mean(1)).abs()
    torch.testing.assert_close(more.per_sample, plain.per_sample + 0.5 * gap)
    assert "ace" not in plain.parts


@pytest.mark.parametrize("name", ["unet", "evidential-unet"])
@pytest.mark.parametrize("key", ["width", "dice_weight"])
def test_missing_key_is_named(name: str, key: str) -> None:
    config = {k: v for k, v in CONFIG.items() if k != key}
    with pytest.raises(UserError, match=f"'{key}' is missing"):
        METHODS[name](config, manifest())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("risk", "type2", "did you mean 'type-2'"),
        ("kl_weight", -1, "'kl_weight' is -1, outside"),
        ("kl_weight", math.nan, "'kl_weight' must be a number"),
        ("kl_anneal_epochs", "ten", "'kl_anneal_epochs' must be a number"),
        ("width", 0, "'width' must be a whole number"),
        ("width", 1.5, "'width' must be a whole number"),
    ],
)
def test_bad_value_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvidentialUNet({**CONFIG, key: value}, manifest())


def test_data_without_masks_are_refused() -> None:
    with pytest.raises(UserError, match="toy: offers classification, and ClassicalUNet needs"):
        ClassicalUNet(CONFIG, manifest(tasks=(TaskName.CLASSIFICATION,)))


@pytest.mark.parametrize("risk", RISKS)
def test_every_risk_trains(risk: str) -> None:
    torch.manual_seed(0)
    model = EvidentialUNet({**CONFIG, "risk": risk}, manifest())
    network = model.network()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = model.loss(network, batch(), END).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


# Several classes, and regions

CLASSES = ("background", "lesion", "scar")
METHOD_CLASSES = {"unet": ClassicalUNet, "evidential-unet": EvidentialUNet}
both_methods = pytest.mark.parametrize("name", METHOD_CLASSES)


def several(task: TaskName, classes: int = 3, regions: int = 2) -> Manifest:
    named = {
        TaskName.MULTICLASS_SEGMENTATION: {"classes": CLASSES[:classes]},
        TaskName.REGION_SEGMENTATION: {"regions": ("whole", "core")[:regions]},
    }
    return manifest(tasks=(task,), **named[task])


def output(name: str, task: TaskName) -> torch.Tensor:
    """Of a network of two classes or one region, which say the same."""
    if name == "unet":
        return torch.tensor([0.0, 0.4] if task is TaskName.MULTICLASS_SEGMENTATION else [0.4])
    # For the foreground, then against it; of classes, the background first.
    forward = torch.tensor([evidence(1.7), evidence(0.3)])
    return forward.flip(0) if task is TaskName.MULTICLASS_SEGMENTATION else forward


@pytest.mark.parametrize("risk", RISKS)
@pytest.mark.parametrize("task", [TaskName.MULTICLASS_SEGMENTATION, TaskName.REGION_SEGMENTATION])
@both_methods
def test_two_classes_and_one_region_are_a_lesion(name: str, task: TaskName, risk: str) -> None:
    config = {**CONFIG, "risk": risk, "ace_weight": 0.3}
    single = METHOD_CLASSES[name](config, manifest())
    other = METHOD_CLASSES[name](config, several(task, classes=2, regions=1))
    network = Fixed(output(name, TaskName.SEGMENTATION))
    twin = Fixed(output(name, task))
    expected, found = single.loss(network, batch(), END), other.loss(twin, batch(), END)
    torch.testing.assert_close(found.per_sample, expected.per_sample)
    for part, value in expected.parts.items():
        torch.testing.assert_close(found.parts[part], value)
    said, same = single.predict(network, batch()), other.predict(twin, batch())
    torch.testing.assert_close(same.probability[:, -1:], said.probability)
    for measure, values in said.uncertainty.items():
        torch.testing.assert_close(same.uncertainty[measure], values)


def test_a_dirichlet_predicts_its_mean_and_its_evidence() -> None:
    model = EvidentialUNet(CONFIG, several(TaskName.MULTICLASS_SEGMENTATION))
    network = Fixed(torch.tensor([evidence(1.0), evidence(4.0), evidence(2.0)]))
    said = model.predict(network, batch())
    # α = 2, 5, 3.
    expected = torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1).expand(3, 3, 16, 16)
    torch.testing.assert_close(said.probability, expected)
    torch.testing.assert_close(said.uncertainty["vacuity"], torch.full((3, 16, 16), 0.3))
    torch.testing.assert_close(model.scores(network, batch()), said.scores)


def test_regions_are_predicted_by_themselves() -> None:
    """The loss of two regions is the mean of what it would be of each alone."""
    outputs = torch.tensor([0.4, -1.2])
    first, second = batch(), batch()
    assert first.mask is not None
    second = replace(first, mask=first.mask.flip(2))
    both = replace(first, mask=torch.cat([first.mask, second.mask], dim=1))
    model = ClassicalUNet(CONFIG, several(TaskName.REGION_SEGMENTATION))
    alone = [
        ClassicalUNet(CONFIG, manifest()).loss(Fixed(outputs[k : k + 1]), one, START).per_sample
        for k, one in enumerate((first, second))
    ]
    found = model.loss(Fixed(outputs), both, START).per_sample
    torch.testing.assert_close(found, torch.stack(alone).mean(0))


@pytest.mark.parametrize("task", [t for t in TaskName if t.endswith("segmentation")], ids=str)
@both_methods
def test_rare_classes_count_as_much_as_their_weight(name: str, task: TaskName) -> None:
    """A weight of 2 for every pixel doubles the first term; of one class, its part of it."""
    kind = manifest() if task is TaskName.SEGMENTATION else several(task)
    model = METHOD_CLASSES[name](CONFIG, kind)
    exclusive = task is TaskName.MULTICLASS_SEGMENTATION
    torch.manual_seed(0)
    network, data = model.network().eval(), batch()
    mask = torch.randint(0, 3, (3, 1, 16, 16)).float() if exclusive else data.mask
    if task is TaskName.REGION_SEGMENTATION:
        assert mask is not None
        mask = torch.cat([mask, 1 - mask], dim=1)
    data = replace(data, mask=mask)
    term = "cross-entropy" if name == "unet" else "risk"

    def of(weights: torch.Tensor | None) -> float:
        model.class_weights = weights
        return float(model.loss(network, data, START).parts[term])

    ones = torch.ones(3) if exclusive else torch.ones(1 if kind.regions == () else 2, 2)
    assert of(ones) == pytest.approx(of(None))
    assert of(2 * ones) == pytest.approx(2 * of(None))
    # What single weights make of it adds up.
    flat = torch.eye(ones.numel()).view(-1, *ones.shape)
    assert sum(of(one) for one in flat) == pytest.approx(of(None), rel=1e-5)


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (TaskName.REGION_SEGMENTATION, "names no region"),
        (TaskName.MULTICLASS_SEGMENTATION, "needs at least two"),
    ],
)
def test_masks_without_names_are_refused(task: TaskName, told: str) -> None:
    with pytest.raises(UserError, match=told):
        ClassicalUNet(CONFIG, manifest(tasks=(task,), classes=("background",)))
