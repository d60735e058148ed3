"""How much a trial uses on its way to each rung."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.data_pipelines.streams.order import part, spread
from trustsweep.distributed.workers.fidelity import FULL, Level, Levels, check, portion
from trustsweep.search_spaces.study import Fidelity, Scheduler, Study, parse

#: Rungs at 1/8, 1/4 and 1/2.
EIGHTH = Scheduler(first=0.125, factor=2)
SHARES = st.floats(0.01, 1)


def test_shares_grow_by_equal_factors_to_all_after_the_last_rung():
    fidelity = Fidelity(
        data=0.125, image_size=0.5, parameters={"attack_steps": 1 / 27}, evaluation_steps=0.008
    )
    levels = Levels(fidelity, EIGHTH, epochs=16)
    ends = {epoch: levels.rung(epoch) for epoch in range(1, 17)}
    assert {epoch: rung for epoch, rung in ends.items() if rung is not None} == {2: 0, 4: 1, 8: 2}
    data = [levels.training(done).data for done in range(16)]
    assert data == pytest.approx([1 / 8] * 2 + [1 / 4] * 2 + [1 / 2] * 4 + [1] * 8)
    at = [levels.evaluation(rung) for rung in range(3)]
    assert [level.evaluation_steps for level in at] == pytest.approx([0.008, 0.04, 0.2])
    assert [level.image_size for level in at] == pytest.approx(
        [2**-1, 2 ** (-2 / 3), 2 ** (-1 / 3)]
    )
    steps = [level.scaled({"attack_steps": 27, "width": 8}) for level in at]
    assert steps == [{"attack_steps": n, "width": 8} for n in (1, 3, 9)]
    assert levels.evaluation(None) == levels.training(8) == FULL


@given(data=SHARES, rungs=st.sets(st.floats(0.01, 0.99), max_size=5), epochs=st.integers(1, 40))
def test_levels_only_grow_and_a_rung_is_judged_as_it_was_trained_for(data, rungs, epochs):
    fidelity = Fidelity(data=data, image_size=data, validation=data)
    levels = Levels(fidelity, Scheduler(rungs=sorted(rungs)), epochs)
    training = [levels.training(done) for done in range(epochs)]
    shares = [level.data for level in training]
    assert shares == sorted(shares)
    assert training[-1] == FULL
    assert levels.rung(epochs) is None
    for epoch in range(1, epochs):
        rung = levels.rung(epoch)
        if rung is not None:
            assert levels.evaluation(rung) == training[epoch - 1]


def test_a_trial_too_short_for_a_rung_uses_everything():
    assert Levels(Fidelity(data=0.1), EIGHTH, epochs=1).training(0) == FULL


@given(full=st.integers(1, 600), share=SHARES, more=SHARES)
def test_sizes_are_multiples_of_16_that_never_exceed_the_images(full, share, more):
    (small,), (large,) = (
        Level(image_size=s).size((full,)) for s in (min(share, more), max(share, more))
    )
    assert small <= large <= full
    assert small == full or (small % 16 == 0 and small >= 16)
    assert Level().size((full, 7)) == (full, 7)


@given(whole=st.integers(-3, 100), share=SHARES)
def test_a_portion_is_a_whole_number_from_1_to_all(whole, share):
    got = portion(whole, share)
    assert isinstance(got, int)
    assert got == whole if whole < 1 else 1 <= got <= whole
    assert portion(whole, 1.0) == whole


@given(samples=st.integers(1, 2000), shares=st.tuples(SHARES, SHARES))
def test_a_spread_part_has_its_size_and_is_within_any_larger_one(samples, shares):
    small, large = (spread(samples, share) for share in sorted(shares))
    assert len(small) == part(samples, min(shares))
    assert set(small) <= set(large) <= set(range(samples))
    assert (np.diff(small) > 0).all()
    assert spread(samples, 1.0).tolist() == list(range(samples))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(
    "classes",
    [
        np.repeat(np.arange(4), 250),
        np.tile(np.arange(4), 250),
        np.tile(np.repeat([0, 1], 10), 50),
        np.arange(1000) % 20 == 0,
    ],
    ids=["blocks", "turns", "runs", "rare"],
)
def test_a_spread_part_keeps_the_proportions_of_the_classes(classes, share):
    taken = classes[spread(len(classes), share)]
    for name in np.unique(classes):
        assert abs((taken == name).sum() - share * (classes == name).sum()) <= 3


@pytest.fixture
def manifest(phantoms):
    return Manifest.load(phantoms)


def study(parameters, **space):
    raw = {
        "name": "s",
        "methods": ["unet", "evidential-unet"],
        "objectives": ["dice_area", "cost.attack_gradients"],
        "constraints": ["cost.images <= 1e6"],
        "fidelity": {"parameters": parameters},
        "space": space,
    }
    return parse(raw, "s.yaml")


def grown(asked: Study, manifest: Manifest) -> None:
    check(asked, asked.search_space(), manifest)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("atack_steps", "did you mean 'attack_steps'"),
        ("learning_rate", "only a whole number"),
        ("epochs", "only a whole number"),
        ("regime", "only a whole number"),
        ("width", "shapes the network of unet"),
    ],
)
def test_a_parameter_that_cannot_grow_is_refused_by_its_key(manifest, name, words):
    with pytest.raises(UserError, match=rf"^fidelity\.parameters\.{name}: .*{words}"):
        grown(study({name: 0.5}), manifest)


def test_parameters_of_one_method_or_with_choices_may_grow(manifest):
    grown(study({"attack_steps": 0.3, "kl_anneal_epochs": 0.5}), manifest)
    grown(study({"attack_steps": 0.3}, attack_steps={"choices": [5, 10]}), manifest)
    with pytest.raises(UserError, match="a whole number"):
        grown(study({"attack_steps": 0.3}, attack_steps={"choices": [5, 2.5]}), manifest)
