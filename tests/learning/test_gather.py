"""Loss and gradients on 1, 2 and 3 gloo processes, against one process that holds the whole batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from stylesim.core.errors import StylesimError
from stylesim.learning import losses
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


def learn(model: nn.Module, images: Tensor, tags: Tensor, gradient, reference: bool) -> dict:
    """One forward and backward through encoder, gather and loss, and everything that came of it."""
    v, b, _ = images.shape
    leaf = images.clone().requires_grad_()
    local = model(leaf.flatten(0, 1)).unflatten(0, (v, b))
    views, all_tags, mine = gather_batch(local, tags)
    share, parts = csd_loss(views, all_tags, 0.1, 5.0, 1.0, reference, anchors=mine)
    total, *shown = sum_shares(torch.stack([share, *parts.values()]), gradient)
    model.zero_grad(set_to_none=True)
    total.backward()  # and not autograd.grad, which would pass DDP by
    return {
        "loss": total.detach(),
        "parts": dict(zip(parts, (part.detach() for part in shown), strict=True)),
        "views": views.detach().clone(),
        "tags": all_tags,
        "gradients": [parameter.grad for parameter in model.parameters()],
        "leaf": leaf.grad,
    }


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    losses.PAIRS_PER_CHUNK = 11  # an anchor at a time, or a few, unlike the process that holds the whole batch
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store{world}", world), rank=rank, world_size=world)
    model = DistributedDataParallel(Encoder())
    found = {}
    for sizes, gradient, reference in CASES:
        if len(sizes) == world:
            images, tags = global_batch(sum(sizes))
            mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
            found[sizes, gradient, reference] = learn(model, images[:, mine], tags[mine], gradient, reference)
    # An empty vocabulary travels too, and integers keep their type.
    views, tags, _ = gather_batch(torch.ones(2, rank + 1, 3), torch.zeros(rank + 1, 0, dtype=torch.bool))
    found["no tags"] = (views.shape, tags.shape, tags.dtype)
    torch.save(found, f"{folder}/{world}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[tuple[int, int], dict]:
    folder: Path = tmp_path_factory.mktemp("gather")
    os.environ["OMP_NUM_THREADS"] = "1"
    # What every process would otherwise import again; DDP's constructor is what wants torch._dynamo.
    mp.get_context("forkserver").set_forkserver_preload(["torch._dynamo", "stylesim.learning.losses"])
    for world in SIZES:
        mp.start_processes(work, args=(world, str(folder)), nprocs=world, start_method="forkserver")
    return {
        (world, rank): torch.load(folder / f"{world}-{rank}.pt", weights_only=True)
        for world in SIZES
        for rank in range(world)
    }


def alone(sizes: tuple[int, ...], reference: bool) -> dict:
    images, tags = global_batch(sum(sizes))
    return learn(Encoder(), images, tags, "exact", reference)


@pytest.mark.parametrize(("sizes", "gradient", "reference"), CASES)
def test_every_process_computes_the_loss_of_the_whole_batch(found, sizes, gradient, reference):
    expected = alone(sizes, reference)
    for rank in range(len(sizes)):
        here = found[len(sizes), rank][sizes, gradient, reference]
        torch.testing.assert_close(here["views"], expected["views"], atol=1e-6, rtol=0)
        assert torch.equal(here["tags"], expected["tags"])
        torch.testing.assert_close(here["loss"], expected["loss"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(here["parts"], expected["parts"], atol=1e-5, rtol=1e-5)
        assert torch.equal(here["loss"], found[len(sizes), 0][sizes, gradient, reference]["loss"])


@pytest.mark.parametrize(("sizes", "gradient", "reference"), CASES)
def test_gradients_after_the_mean_over_processes(found, sizes, gradient, reference):
    world = len(sizes)
    share = 1 if gradient == "exact" else 1 / world
    expected = alone(sizes, reference)
    for rank in range(world):
        here = found[world, rank][sizes, gradient, reference]
        for mine, whole in zip(here["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(mine, whole * share, atol=1e-5, rtol=1e-5)
        # Before the mean, a process holds the gradient of its own images alone, world times or once.
        rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        torch.testing.assert_close(here["leaf"], expected["leaf"][:, rows] * share * world, atol=1e-5, rtol=1e-5)


def test_untagged_images_are_gathered(found):
    for world in SIZES:
        images = world * (world + 1) // 2
        for rank in range(world):
            assert found[world, rank]["no tags"] == ((2, images, 3), (images, 0), torch.bool)


def test_without_a_process_group_nothing_happens():
    images, tags = global_batch(3)
    views, same, mine = gather_batch(images, tags)
    assert views is images
    assert same is tags
    assert mine == slice(0, 3)
    assert sum_shares(share := torch.ones(2)) is share


def test_an_unknown_gradient_is_refused():
    with pytest.raises(StylesimError, match="choose 'exact' or 'reference'"):
        sum_shares(torch.ones(2), gradient="referense")  # type: ignore[arg-type]
