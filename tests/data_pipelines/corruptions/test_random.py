"""The random numbers of the corruptions: their distribution, and that the seed alone decides."""

import numpy as np
import pytest
import torch
from scipy import stats

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds

COUNT = 40_000
DRAWS = {"uniform": random.uniform, "symmetric": random.symmetric, "normal": random.normal}
EXPECTED = {
    "uniform": stats.uniform(),
    "symmetric": stats.uniform(-1, 2),
    "normal": stats.norm(),
}


def counts(seeds, shape, stream=0):
    return random.poisson(torch.full((len(seeds), *shape), 14.0), seeds, stream)


EVERY = {**DRAWS, "poisson": counts}


def test_words_are_those_of_splitmix64():
    # The published sequence from state 0 (Vigna's splitmix64.c, first three outputs), which a
    # seed's own start displaces: undo the start and the words must be the same.
    words = random._mix(torch.arange(1, 4) * random._GOLDEN)
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [word % 2**64 for word in words.tolist()] == published


def test_figures_of_a_study_do_not_change_with_the_release():
    seeds = draw_seeds(["case-1"])
    assert random.bits(seeds, 2, stream=1).tolist() == [
        [-3770262178392172643, -4052054570153524993]
    ]
    assert random.normal(seeds, (2,)).tolist()[0] == pytest.approx(
        [-0.2863498, -0.5461805], abs=1e-6
    )


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("seed", [0, 1, 2**62 + 5])
def test_one_seed_has_the_distribution(name, seed):
    draws = DRAWS[name](torch.tensor([seed]), (COUNT,))[0].double().numpy()
    expected = EXPECTED[name]
    assert stats.kstest(draws, expected.cdf).pvalue > 1e-3
    assert draws.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / COUNT**0.5)
    assert draws.var() == pytest.approx(expected.var(), rel=0.04)


@pytest.mark.parametrize("name", DRAWS)
def test_first_numbers_of_many_seeds_and_streams_have_the_distribution(name):
    """Corruptions draw one angle per sample from hashed seeds; consecutive ones must do as well."""
    cdf = EXPECTED[name].cdf
    seeds = torch.arange(COUNT)
    assert stats.kstest(DRAWS[name](seeds, (1,))[:, 0].numpy(), cdf).pvalue > 1e-3
    streams = np.array([float(DRAWS[name](seeds[:1], (1,), s)) for s in range(2000)])
    assert stats.kstest(streams, cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", DRAWS)
def test_neighbours_are_not_correlated(name):
    draw = DRAWS[name]
    seeds = torch.arange(200)
    here = draw(seeds, (400,))
    pairs = {
        "counters": (here[:, :-1], here[:, 1:]),
        "counters of a word": (here[:, ::4], here[:, 2::4]),
        "seeds": (here[:-1], here[1:]),
        "streams": (here, draw(seeds, (400,), 1)),
        "seed against counter": (here[:-1, 1:], here[1:, :-1]),
    }
    for kind, (left, right) in pairs.items():
        found = stats.pearsonr(left.flatten().numpy(), right.flatten().numpy())
        assert found.pvalue > 1e-4, kind


def test_each_bit_is_a_fair_coin_and_flips_half_of_the_word():
    seeds = torch.arange(500)
    words = random.bits(seeds, 40).numpy().view(np.uint64)
    planes = (words[..., None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    deviation = (planes.mean(axis=(0, 1)) - 0.5) * 2 * words.size**0.5
    assert np.abs(deviation).max() < 4.5
    for bit in (0, 1, 31, 62):
        other = random.bits(seeds ^ (1 << bit), 40).numpy().view(np.uint64)
        flipped = np.bitwise_count(words ^ other)
        assert flipped.mean() == pytest.approx(32, abs=0.15)


def test_the_normal_table_has_mean_zero_variance_one_and_long_tails():
    table = random._quantiles(torch.device("cpu")).double()
    assert float(table.mean()) == pytest.approx(0, abs=1e-9)
    assert float(table.var(correction=0)) == pytest.approx(1, abs=1e-6)
    assert float(table.max()) == pytest.approx(stats.norm.isf(0.5 / 65536), rel=1e-3)
    assert bool((table.diff() > 0).all())


@pytest.mark.parametrize("mean", [0.0, 0.3, 5.0, 9.9, 10.1, 30.0, 300.0])
def test_poisson_counts_have_poissons_distribution(mean):
    seeds = torch.arange(8)
    found = random.poisson(torch.full((8, 20_000), mean), seeds).flatten().numpy()
    assert (found == found.round()).all()
    assert found.min() >= 0
    if mean == 0:
        assert found.max() == 0
        return
    law = stats.poisson(mean)
    # Categories of at least some tens of expected counts, the tails in one each.
    low, high = int(law.ppf(2e-4)), int(law.isf(2e-4))
    edges = np.arange(low, high + 1)
    observed = np.bincount(np.clip(found, low, high).astype(int) - low, minlength=len(edges))
    expected = law.pmf(edges)
    expected[0], expected[-1] = law.cdf(low), law.sf(high - 1)
    assert stats.chisquare(observed, expected * len(found)).pvalue > 1e-3
    assert found.mean() == pytest.approx(mean, abs=5 * (mean / len(found)) ** 0.5 + 1e-3)


def test_poisson_of_mixed_means_equals_that_of_each_mean_alone():
    seeds = torch.tensor([3, 4])
    mixed = torch.tensor([[0.0, 2.0, 9.999, 10.001, 250.0]] * 2)
    together = random.poisson(mixed, seeds)
    for place in range(mixed.shape[1]):
        alone = random.poisson(torch.full_like(mixed, float(mixed[0, place])), seeds)
        assert torch.equal(alone[:, place], together[:, place])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (2, 64, 64)])
def test_a_seed_draws_the_same_in_any_batch(name, shape):
    seeds = draw_seeds([f"s{i}" for i in range(9)])
    whole = EVERY[name](seeds, shape)
    assert whole.shape == (9, *shape)
    assert whole.dtype == torch.float32
    order = torch.tensor([7, 2, 2])
    assert torch.equal(EVERY[name](seeds[order], shape), whole[order])
    assert torch.equal(EVERY[name](seeds[4:5], shape), whole[4:5])
    with torch.inference_mode():
        assert torch.equal(EVERY[name](seeds, shape), whole)


@pytest.mark.parametrize("name", EVERY)
def test_no_seeds_and_no_numbers_are_empty(name):
    assert EVERY[name](torch.zeros(0, dtype=torch.long), (3,)).shape == (0, 3)
    assert EVERY[name](torch.zeros(2, dtype=torch.long), (0, 3)).shape == (2, 0, 3)


def test_a_longer_draw_begins_with_the_shorter_one():
    seeds = torch.arange(3)
    assert torch.equal(random.bits(seeds, 50)[:, :20], random.bits(seeds, 20))


def test_forked_seeds_are_other_seeds():
    seeds = draw_seeds([f"s{i}" for i in range(1000)])
    forks = [random.fork(seeds, name) for name in ("tiles", "flair")]
    every = torch.cat([seeds, *forks]).tolist()
    assert len(set(every)) == 3000
    assert min(every) >= 0
    assert torch.equal(random.fork(seeds, "tiles"), forks[0])
    assert torch.equal(seeds, draw_seeds([f"s{i}" for i in range(1000)]))
    left, right = (random.normal(s, (200,)).flatten().numpy() for s in (seeds, forks[0]))
    assert stats.pearsonr(left, right).pvalue > 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["uniform", "symmetric", "normal"])
def test_a_gpu_draws_the_same(name):
    seeds = draw_seeds([f"s{i}" for i in range(5)])
    assert torch.equal(EVERY[name](seeds.cuda(), (33, 7)).cpu(), EVERY[name](seeds, (33, 7)))
