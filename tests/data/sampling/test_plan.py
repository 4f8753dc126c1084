"""The order of a stream, for any mix of shards, ranks and workers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.data.sampling import plan as plan_module
from stylesim.data.sampling.plan import Plan, shuffle

Sample = tuple[int, int]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    counts = draw(st.lists(st.integers(0, 30), min_size=1, max_size=8))
    batch, world = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    counts[0] += max(0, batch * world - sum(counts))
    return Plan(
        counts=tuple(counts),
        batch_size=batch,
        world=world,
        workers=draw(st.integers(1, 5)),
        seed=draw(st.integers(0, 3)),
        buffer=draw(st.integers(0, 20)),
    )


def served(plan: Plan, epoch: int, rank: int, worker: int) -> list[Sample]:
    """The samples of one reader in one epoch, in the order in which it serves them."""
    read = [(s.shard, i) for s in plan.segments(epoch, rank, worker) for i in range(s.start, s.stop)]
    return [read[position] for position in plan.order(epoch, rank, worker)[1]]


def batches_of(plan: Plan, epoch: int, rank: int) -> dict[int, list[Sample]]:
    batches = {}
    for worker in range(plan.workers):
        samples = served(plan, epoch, rank, worker)
        numbers = plan.micro_batches(epoch, worker)
        assert len(samples) == plan.batch_size * len(numbers)
        for number, m in enumerate(numbers):
            batches[m] = samples[number * plan.batch_size : (number + 1) * plan.batch_size]
    return batches


@given(plans(), st.integers(0, 3))
def test_an_epoch_serves_each_sample_once_and_drops_less_than_a_global_batch(plan: Plan, epoch: int):
    ranks = [batches_of(plan, epoch, rank) for rank in range(plan.world)]
    numbers = set(range(epoch * plan.steps, (epoch + 1) * plan.steps))
    assert all(set(batches) == numbers for batches in ranks)  # so no rank waits for another
    seen = Counter(sample for batches in ranks for batch in batches.values() for sample in batch)
    every = {(shard, i) for shard, count in enumerate(plan.counts) for i in range(count)}
    assert set(seen) <= every
    assert max(seen.values()) == 1
    assert len(every) - len(seen) == plan.dropped < plan.batch_size * plan.world


@given(plans())
def test_a_micro_batch_is_served_by_the_worker_that_a_dataloader_asks(plan: Plan):
    for m in range(3 * plan.steps):
        worker = m % plan.workers
        assert m in plan.micro_batches(m // plan.steps, worker)


@given(st.integers(0, 200), st.integers(0, 40), st.integers(0, 9))
def test_the_shuffle_buffer_serves_each_sample_once_and_never_holds_more_than_its_size(n: int, buffer: int, seed: int):
    order = list(shuffle(n, buffer, np.random.default_rng(seed))[1])
    assert sorted(order) == list(range(n))
    held: set[int] = set()
    read = most = 0
    for position in order:
        while position >= read:
            held.add(read)
            read += 1
        most = max(most, len(held))
        held.remove(position)
    assert most <= max(buffer, 1)


@given(st.integers(0, 200), st.integers(0, 40), st.integers(0, 9), st.floats(0, 1), st.integers(1, 60))
def test_a_shuffle_buffer_entered_anywhere_holds_what_it_would_hold(
    n: int, buffer: int, seed: int, entry: float, chunk: int
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "_CHUNK", chunk)
        skip = int(entry * n)
        held, rest = shuffle(n, buffer, np.random.default_rng(seed), skip)
        rest = list(rest)
    expected, rng = list(range(min(max(buffer, 1), n))), np.random.default_rng(seed)  # one by one, by the definition
    whole = []
    for sample, index in enumerate(rng.integers(0, max(len(expected), 1), n - len(expected)).tolist(), len(expected)):
        whole.append(expected[index])
        expected[index] = sample
    whole += rng.permutation(expected).tolist()
    assert rest == whole[skip:]
    assert set(held) == set(range(min(skip + len(expected), n))) - set(whole[:skip])


def test_orders_are_reproducible_and_differ_between_epochs_seeds_and_readers():
    plan = Plan((50, 50), batch_size=5, world=2, workers=2, seed=1, buffer=20)
    other_seed = Plan((50, 50), batch_size=5, world=2, workers=2, seed=2, buffer=20)
    first = served(plan, 0, 0, 0)
    assert first == served(plan, 0, 0, 0)
    assert first != served(plan, 1, 0, 0)
    assert first != served(other_seed, 0, 0, 0)
    assert not set(first) & set(served(plan, 0, 1, 0))


def test_a_buffer_as_large_as_the_data_shuffles_evenly():
    first = Counter(next(shuffle(8, 8, np.random.default_rng(seed))[1]) for seed in range(800))
    assert len(first) == 8
    assert all(60 < count < 140 for count in first.values())  # 100 each, five deviations either way


def test_even_a_single_shard_drops_other_samples_in_each_epoch():
    plan = Plan((10,), batch_size=4, world=1, workers=1, seed=0, buffer=0)
    missing = [set(range(10)) - {i for _, i in served(plan, epoch, 0, 0)} for epoch in range(8)]
    assert len(set.union(*missing)) > 4


def test_data_that_fill_no_global_batch_are_refused_with_the_numbers():
    with pytest.raises(StylesimError, match=r"7 images do not fill one global batch of 4 for each of 2 processes"):
        Plan((3, 4), batch_size=4, world=2)
