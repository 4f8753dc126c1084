"""Loss and gradients on 1, 2 and 3 gloo processes, compared with one process that holds the global batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from processes import preload_in_forkserver
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from stylesim.core.errors import ConfigError
from stylesim.learning import contrast
from stylesim.learning.gather import gather_batch, sum_shares
from stylesim.learning.losses import csd_loss

SIZES = {1: [(7,)], 2: [(4, 4), (5, 2), (0, 6)], 3: [(3, 3, 3), (4, 1, 2), (3, 0, 4), (0, 0, 0)]}
CASES = [
    (sizes, gradient, reference)
    for by_world in SIZES.values()
    for sizes in by_world
    for gradient in ("exact", "reference")
    for reference in (False, True)
]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        for parameter in self.layers.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5

    def forward(self, images: Tensor) -> Tensor:
        return normalize(self.layers(images), dim=-1)


def global_batch(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(2, n, 6, generator=generator), torch.rand(n, 5, generator=generator) < 0.3


def train_step(model: nn.Module, images: Tensor, tags: Tensor, gradient, reference: bool) -> dict:
    """Return the results of one forward and backward pass through encoder, gather and loss."""
    v, b, _ = images.shape
    leaf = images.clone().requires_grad_()
    local = model(leaf.flatten(0, 1)).unflatten(0, (v, b))
    views, all_tags, anchors = gather_batch(local, tags)
    share, parts = csd_loss(views, all_tags, 0.1, 5.0, 1.0, reference, anchors=anchors)
    total, *sums = sum_shares(torch.stack([share, *parts.values()]), gradient)
    model.zero_grad(set_to_none=True)
    total.backward()  # not autograd.grad, which bypasses DDP's hooks
    return {
        "loss": total.detach(),
        "parts": dict(zip(parts, (part.detach() for part in sums), strict=True)),
        "views": views.detach().clone(),
        "tags": all_tags,
        "gradients": [parameter.grad for parameter in model.parameters()],
        "leaf": leaf.grad,
    }


def run_rank(rank: int, folder: str) -> None:
    """Form one process group after another, so that the processes are started once for all world sizes."""
    torch.set_num_threads(1)
    contrast.PAIRS_PER_CHUNK = 11  # one anchor at a time, or a few, unlike the process that holds the global batch
    for world in SIZES:
        if rank < world:
            run_group(rank, world, folder)


def run_group(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store{world}", world), rank=rank, world_size=world)
    model = DistributedDataParallel(Encoder())
    results = {}
    for sizes, gradient, reference in CASES:
        if len(sizes) == world:
            images, tags = global_batch(sum(sizes))
            local = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
            results[sizes, gradient, reference] = train_step(model, images[:, local], tags[local], gradient, reference)
    # An empty vocabulary is gathered as well, and dtypes are kept.
    views, tags, _ = gather_batch(torch.ones(2, rank + 1, 3), torch.zeros(rank + 1, 0, dtype=torch.bool))
    results["no tags"] = (views.shape, tags.shape, tags.dtype)
    torch.save(results, f"{folder}/{world}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[tuple[int, int], dict]:
    folder: Path = tmp_path_factory.mktemp("gather")
    os.environ["OMP_NUM_THREADS"] = "1"
    preload_in_forkserver()
    mp.start_processes(run_rank, args=(str(folder),), nprocs=max(SIZES), start_method="forkserver")
    return {
        (world, rank): torch.load(folder / f"{world}-{rank}.pt", weights_only=True)
        for world in SIZES
        for rank in range(world)
    }


def on_one_process(sizes: tuple[int, ...], reference: bool) -> dict:
    images, tags = global_batch(sum(sizes))
    return train_step(Encoder(), images, tags, "exact", reference)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "gradient", "reference"), CASES)
def test_each_process_computes_the_loss_of_the_global_batch(results, sizes, gradient, reference):
    expected = on_one_process(sizes, reference)
    for rank in range(len(sizes)):
        actual = results[len(sizes), rank][sizes, gradient, reference]
        torch.testing.assert_close(actual["views"], expected["views"], atol=1e-6, rtol=0)
        assert torch.equal(actual["tags"], expected["tags"])
        torch.testing.assert_close(actual["loss"], expected["loss"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(actual["parts"], expected["parts"], atol=1e-5, rtol=1e-5)
        assert torch.equal(actual["loss"], results[len(sizes), 0][sizes, gradient, reference]["loss"])


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "gradient", "reference"), CASES)
def test_gradients_averaged_over_processes_are_those_of_the_global_batch(results, sizes, gradient, reference):
    world = len(sizes)
    share = 1 if gradient == "exact" else 1 / world
    expected = on_one_process(sizes, reference)
    for rank in range(world):
        actual = results[world, rank][sizes, gradient, reference]
        for gradients, whole in zip(actual["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(gradients, whole * share, atol=1e-5, rtol=1e-5)
        # Before the mean, a process holds the gradient of its own images only, times the world size or times one.
        rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        torch.testing.assert_close(actual["leaf"], expected["leaf"][:, rows] * share * world, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_images_without_tags_are_gathered(results):
    for world in SIZES:
        images = world * (world + 1) // 2
        for rank in range(world):
            assert results[world, rank]["no tags"] == ((2, images, 3), (images, 0), torch.bool)


def test_without_a_process_group_the_input_is_returned():
    images, tags = global_batch(3)
    gathered, all_tags, local = gather_batch(images, tags)
    assert gathered is images
    assert all_tags is tags
    assert local == slice(0, 3)
    assert sum_shares(shares := torch.ones(2)) is shares


def test_an_unknown_gather_is_refused():
    with pytest.raises(ConfigError, match=r"learning\.gather must be 'exact' or 'reference', got 'referense'"):
        sum_shares(torch.ones(2), gradient="referense")  # type: ignore[arg-type]
