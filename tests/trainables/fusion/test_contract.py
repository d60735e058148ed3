"""What every registered fusion model promises, on every kind of manifest."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import (
    Batch,
    Feature,
    ImageSpec,
    Kind,
    Manifest,
    Modality,
    TaskName,
)
from trustsweep.search_spaces.space import Space
from trustsweep.trainables.contract import Prediction, Progress
from trustsweep.trainables.fusion.base import FusionMethod
from trustsweep.trainables.fusion.encoders import Stem
from trustsweep.trainables.registry import METHODS

torch.set_num_threads(1)
NOW = Progress(1, 3)
#: Narrow, where a model has it at all.
SMALL = {"width": 4, "depth": 2, "dim": 8, "passes": 3, "latents": 4, "latent_dim": 8}
STEPS = 5

TABLE = (
    Feature(name="age", mean=0.5, std=0.3),
    Feature(name="sex", vocabulary=("f", "m")),
    Feature(name="dose", mean=0.4, std=0.2),
)
SERIES = tuple(Feature(name=name, mean=0.5, std=0.3) for name in ("heart", "breath", "lactate"))


def toy_manifest(
    image: tuple[int, ...] = (), modalities: Sequence[Modality] = (), **more: object
) -> Manifest:
    channels = image[0] if image else 0
    fields = {
        "name": "toy",
        "tasks": (TaskName.CLASSIFICATION,),
        "image_shape": image,
        "image_scale": 1.0,
        "classes": ("well", "ill"),
        "mean": (0.5,) * channels,
        "std": (0.3,) * channels,
        "split_counts": {"train": 4},
        "columns": {},
        "fingerprint": "0",
        "modalities": tuple(modalities),
    }
    return Manifest(**{**fields, **more})  # type: ignore[arg-type]


def image(name: str, *indices: int, column: str = "image") -> Modality:
    return Modality(name=name, kind=Kind.IMAGE, column=column, indices=indices)


def table(name: str, *indices: int) -> Modality:
    return Modality(name=name, kind=Kind.TABULAR, column="tabular", indices=indices)


def series(name: str, *indices: int) -> Modality:
    return Modality(name=name, kind=Kind.SERIES, column="series", indices=indices)


#: Modalities are named out of order, as the models put them in order.
TOYS = {
    "sequences, series and table": toy_manifest(
        (3, 9, 10),
        [image("t1", 1, 2), series("vitals", 0, 1), image("flair", 0), series("labs", 2),
         table("history")],
        tabular=TABLE,
        series=SERIES,
    ),
    "image and table": toy_manifest((1, 8, 8), [table("notes"), image("image")], tabular=TABLE),
    "tables": toy_manifest((), [table("history", 1, 2), table("bloods", 0)], tabular=TABLE),
    "volume and table": toy_manifest(
        (1, 6, 8, 6), [table("history"), image("ct")], tabular=TABLE
    ),
    "two views": toy_manifest(
        (1, 8, 8),
        [image("lateral", column="side"), image("frontal")],
        more_images={"side": ImageSpec(shape=(2, 5, 7), mean=(0.5, 0.4), std=(0.3, 0.2))},
    ),
    "single": toy_manifest((1, 8, 8), [image("xray")]),
    "unnamed": toy_manifest((1, 8, 8), tabular=TABLE, series=SERIES),
}  # fmt: skip

MODELS = [name for name, made in METHODS.items() if issubclass(made, FusionMethod)]
every_model = pytest.mark.parametrize("name", MODELS)
every_toy = pytest.mark.parametrize("manifest", TOYS.values(), ids=TOYS)
every_named_toy = pytest.mark.parametrize(
    "manifest", [m for m in TOYS.values() if m.modalities], ids=[k for k in TOYS if k != "unnamed"]
)


def build(
    name: str, manifest: Manifest, classes: int = 2, **config: object
) -> tuple[FusionMethod, nn.Module]:
    defaults = Space([name], {}).defaults(name)
    small = {key: value for key, value in SMALL.items() if key in defaults}
    names = ("well", "ill", "worse", "worst")[:classes]
    model = METHODS[name](
        {**defaults, **small, **config}, dataclasses.replace(manifest, classes=names)
    )
    torch.manual_seed(0)
    return model, model.network().eval()


def draw(manifest: Manifest, present: Tensor, classes: int = 2, seed: int = 0) -> Batch:
    """A sample for each row of `present`; what is absent has values nevertheless."""
    draws = torch.Generator().manual_seed(seed)
    size = len(present)

    def random(*shape: int) -> Tensor:
        return torch.rand(size, *shape, generator=draws)

    of_table, of_series = None, {}
    if manifest.tabular:
        of_table = random(len(TABLE))
        of_table[:, 1] = torch.arange(size) % 2
    if manifest.series:
        shape = (STEPS, len(SERIES))
        of_series = {
            "series": random(*shape),
            "series_mask": torch.ones(size, *shape),
            "series_delta": random(*shape),
        }
    return Batch(
        sample_id=tuple(map(str, range(size))),
        image=random(*(manifest.image_shape or (0,))),
        label=torch.arange(size) % classes,
        tabular=of_table,
        **of_series,
        present=present.float() if manifest.modalities else None,
        severity=(present * torch.randint(6, present.shape, generator=draws)).float(),
        more_images={key: random(*spec.shape) for key, spec in manifest.more_images.items()},
    )


def patterns(manifest: Manifest) -> Tensor:
    """(2^M, M) bool: every way in which modalities may be there, the first without any."""
    return torch.tensor(list(itertools.product([False, True], repeat=len(manifest.sources))))


def values(batch: Batch) -> dict[str, Tensor]:
    """What modalities are made of, by column."""
    known = {"image": batch.image, "tabular": batch.tabular, "series": batch.series}
    return {k: v for k, v in known.items() if v is not None and v.numel()} | batch.more_images


def cells(batch: Batch, manifest: Manifest, chosen: Tensor) -> dict[str, Tensor]:
    """Column to bool of its shape: the values of the (B, M) chosen modalities."""
    found = {column: torch.zeros_like(value).bool() for column, value in values(batch).items()}
    for number, modality in enumerate(manifest.sources):
        column = found[modality.column]
        axis = 2 if modality.kind is Kind.SERIES else 1
        indices = list(modality.indices or range(column.shape[axis]))
        rows = chosen[:, number].view(-1, *(1,) * (column.ndim - 1))
        column[(slice(None),) * axis + (indices,)] = rows
    return found


def replaced(batch: Batch, columns: dict[str, Tensor]) -> Batch:
    own = {key: value for key, value in columns.items() if key in ("image", "tabular", "series")}
    others = {key: value for key, value in columns.items() if key not in own}
    return dataclasses.replace(batch, **own, more_images=others)  # type: ignore[arg-type]


def filled(batch: Batch, manifest: Manifest, chosen: Tensor, fill: float) -> Batch:
    """With `fill` for all that the batch holds of the (B, M) chosen modalities."""
    where = cells(batch, manifest, chosen)
    columns = {key: torch.where(where[key], fill, value) for key, value in values(batch).items()}
    if batch.series is None:
        return replaced(batch, columns)
    marks = {
        key: torch.where(where["series"], fill, getattr(batch, key))
        for key in ("series_mask", "series_delta")
    }
    return dataclasses.replace(replaced(batch, columns), **marks)  # type: ignore[arg-type]


def assert_same(found: Prediction, expected: Prediction) -> None:
    assert torch.equal(found.probability, expected.probability)
    assert found.uncertainty.keys() == expected.uncertainty.keys()
    for key, value in expected.uncertainty.items():
        assert torch.equal(found.uncertainty[key], value)
    if expected.modality_weights is not None:
        assert found.modality_weights is not None
        assert torch.equal(found.modality_weights, expected.modality_weights)


@pytest.mark.parametrize("fill", [0.7, math.nan, math.inf])
@every_named_toy
@every_model
def test_what_is_absent_changes_nothing_and_has_no_gradient(
    name: str, manifest: Manifest, fill: float
) -> None:
    model, network = build(name, manifest)
    present = patterns(manifest)
    batch = draw(manifest, present)
    other = filled(batch, manifest, ~present, fill)
    columns = {key: value.requires_grad_() for key, value in values(other).items()}
    other = replaced(other, columns)
    assert_same(model.predict(network, other), model.predict(network, batch))
    found, expected = (model.loss(network, b, NOW).per_sample for b in (other, batch))
    assert torch.equal(found, expected)
    found.sum().backward()
    for key, gone in cells(batch, manifest, ~present).items():
        gradient = columns[key].grad
        assert gradient is not None
        assert bool(gradient.isfinite().all())
        assert not gradient[gone].any()


@every_toy
@every_model
def test_a_prediction_is_the_samples_own(name: str, manifest: Manifest) -> None:
    model, network = build(name, manifest)
    present = patterns(manifest)
    batch, last = draw(manifest, present), len(present) - 1
    for row in (1, last):
        others = torch.arange(len(present)) != row
        every = others[:, None].expand_as(present)
        changed = filled(batch, manifest, every, math.nan)
        if batch.present is not None:
            flipped = torch.where(every, 1 - batch.present, batch.present)
            changed = dataclasses.replace(changed, present=flipped)
        together = model.predict(network, batch).probability[row]
        torch.testing.assert_close(model.predict(network, changed).probability[row], together)
        alone = model.predict(network, batch.select([row])).probability[0]
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@every_named_toy
@every_model
def test_the_order_of_modalities_does_not_matter(name: str, manifest: Manifest) -> None:
    model, network = build(name, manifest)
    batch = draw(manifest, patterns(manifest))
    order = list(reversed(range(len(manifest.modalities))))
    turned = dataclasses.replace(
        manifest, modalities=tuple(manifest.modalities[number] for number in order)
    )
    other, other_network = build(name, turned)
    other_network.load_state_dict(network.state_dict())
    assert batch.present is not None
    assert batch.severity is not None
    batch_turned = dataclasses.replace(
        batch, present=batch.present[:, order], severity=batch.severity[:, order]
    )
    expected = model.predict(network, batch)
    weights = expected.modality_weights
    if weights is not None:
        expected = dataclasses.replace(expected, modality_weights=weights[:, order])
    assert_same(other.predict(other_network, batch_turned), expected)
    torch.testing.assert_close(
        other.loss(other_network, batch_turned, NOW).per_sample,
        model.loss(network, batch, NOW).per_sample,
    )


@every_named_toy
@every_model
def test_predictions_are_distributions_and_weights_are_of_what_is_there(
    name: str, manifest: Manifest
) -> None:
    model, network = build(name, manifest)
    present = patterns(manifest)
    prediction = model.predict(network, draw(manifest, present))
    torch.testing.assert_close(prediction.probability.sum(dim=1), torch.ones(len(present)))
    assert bool((prediction.probability >= 0).all())
    weights = prediction.modality_weights
    if weights is None:
        return
    assert weights.shape == present.shape
    assert bool((weights >= 0).all())
    assert not weights[~present].any()
    torch.testing.assert_close(weights.sum(dim=1), present.any(dim=1).float())
    alone = present.sum(dim=1) == 1
    torch.testing.assert_close(weights[alone], present[alone].float())


@pytest.mark.parametrize("classes", [2, 4])
@every_toy
@every_model
def test_of_nothing_every_class_is_equally_likely(
    name: str, manifest: Manifest, classes: int
) -> None:
    model, network = build(name, manifest, classes)
    nothing = torch.zeros(3, len(manifest.sources))
    batch = draw(manifest, nothing, classes)
    if not manifest.modalities:
        batch = filled(batch, manifest, nothing == 0, math.nan)
    prediction = model.predict(network, batch)
    assert torch.equal(prediction.probability, torch.full((3, classes), 1 / classes))
    torch.testing.assert_close(
        prediction.uncertainty["entropy"], torch.full((3,), math.log(classes))
    )
    if prediction.modality_weights is not None:
        assert not prediction.modality_weights.any()
    loss = model.loss(network, batch, NOW)
    torch.testing.assert_close(loss.per_sample, torch.full((3,), math.log(classes)))
    loss.total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("classes", [2, 4])
@every_toy
@every_model
def test_any_pattern_has_a_finite_loss_that_reaches_every_parameter(
    name: str, manifest: Manifest, classes: int
) -> None:
    model, network = build(name, manifest, classes)
    loss = model.loss(network.train(), draw(manifest, patterns(manifest), classes), NOW)
    assert bool(loss.per_sample.isfinite().all())
    torch.testing.assert_close(sum(loss.parts.values()), loss.total.detach())
    loss.total.backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@every_toy
@every_model
def test_a_modality_of_nan_is_absent(name: str, manifest: Manifest) -> None:
    model, network = build(name, manifest)
    present = patterns(manifest)
    everywhere = torch.ones_like(present)
    of_nan = filled(draw(manifest, everywhere), manifest, ~present, math.nan)
    if manifest.modalities:
        assert_same(
            model.predict(network, of_nan),
            model.predict(network, dataclasses.replace(of_nan, present=present.float())),
        )
    weights = model.predict(network, of_nan).modality_weights
    if weights is not None:
        assert not weights[~present].any()


@every_named_toy
@every_model
def test_where_nobody_says_what_is_absent_all_is_there(name: str, manifest: Manifest) -> None:
    model, network = build(name, manifest)
    batch = draw(manifest, torch.ones(4, len(manifest.sources)))
    unsaid = dataclasses.replace(batch, present=None)
    assert_same(model.predict(network, unsaid), model.predict(network, batch))


@pytest.mark.parametrize("fill", [0.5, math.nan, math.inf])
@every_toy
@every_model
def test_odd_values_in_one_class_are_no_surprise(
    name: str, manifest: Manifest, fill: float
) -> None:
    """A constant modality; single entries, steps and pixels that are no number; no other class."""
    model, network = build(name, manifest)
    everywhere = torch.ones(4, len(manifest.sources))
    batch = draw(manifest, everywhere)
    batch = dataclasses.replace(batch, label=torch.ones(4, dtype=torch.long))
    columns = {key: value.clone() for key, value in values(batch).items()}
    for value in columns.values():
        value.flatten(1)[:, :: 1 if fill == 0.5 else 2] = fill
    odd = replaced(batch, columns)
    loss = model.loss(network.train(), odd, NOW)
    assert bool(loss.per_sample.isfinite().all())
    loss.total.backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
    assert bool(model.predict(network.eval(), odd).probability.isfinite().all())


@every_model
def test_names_are_free(name: str) -> None:
    """Also those that a module of torch could not have for a child."""
    named = [image("t1.5", 0), image("t1_5", 1), image("keys", 2), table("training")]
    manifest = toy_manifest((3, 8, 8), named, tabular=TABLE)
    model, network = build(name, manifest)
    batch = draw(manifest, patterns(manifest))
    assert bool(model.loss(network, batch, NOW).per_sample.isfinite().all())


@every_model
def test_a_few_steps_learn_from_the_one_modality_that_tells(name: str) -> None:
    manifest = TOYS["sequences, series and table"]
    model, network = build(name, manifest)
    batch = draw(manifest, torch.ones(16, len(manifest.modalities)))
    assert batch.tabular is not None
    batch = dataclasses.replace(batch, label=(batch.tabular[:, 0] > 0.5).long())
    optimiser = torch.optim.Adam(network.train().parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = model.loss(network, batch, NOW)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        losses.append(loss.total.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", [n for n in MODELS if "passes" in Space([n], {}).defaults(n)])
def test_passes_cost_a_single_call_of_each_stem(name: str) -> None:
    manifest = TOYS["sequences, series and table"]
    model, network = build(name, manifest, passes=7)
    calls: Counter[str] = Counter()
    for key, module in network.named_modules():
        if isinstance(module, Stem):
            module.register_forward_hook(lambda *_, key=key: calls.update([key]))
    model.predict(network, draw(manifest, patterns(manifest)))
    assert list(calls.values()) == [1] * len(manifest.modalities)
