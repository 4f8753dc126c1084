"""An encoder divided among four gloo processes, two nodes of two, against one process that holds the whole batch."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from stylesim.core.errors import StylesimError
from stylesim.data.batch import Batch
from stylesim.encoders.csd_encoder import CSDEncoder
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance
from stylesim.learning.fsdp import full_state_dict, unsharded_weights
from stylesim.learning.grad_clip import clip_gradients
from stylesim.learning.losses import CSDLoss
from stylesim.learning.style_module import StyleModule
from stylesim.learning.trainer import build_trainer

SIZES = (3, 0, 2, 2)  # images of each rank; one has lost all of its own
WAYS = {"plain": {}, "cached": {"grad_cache": 1}, "per_tensor": {"clip_mode": "per_tensor"}}


class Backbone(nn.Module):
    """Layers in a list, as transformers have them, between others; one has rows that four cannot share evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.GELU()) for _ in range(3))
        self.last = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for block in self.blocks:
            features = features + block(features)
        return self.last(features.mean(dim=(2, 3)))


def module_of(**settings) -> StyleModule:
    torch.manual_seed(0)
    heads = torch.randn(5, 4), torch.randn(5, 4)
    encoder = CSDEncoder(Backbone(), *heads, Preprocessing(8), Provenance("small", "random"))
    module = StyleModule(encoder, CSDLoss(content_weight=0.3), **settings)
    module._trainer = SimpleNamespace(  # type: ignore[assignment]
        global_step=3, max_steps=10, datamodule=SimpleNamespace(batch_size=max(SIZES))
    )
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    return module.train()


def batch_of(images: slice) -> Batch:
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(256, (2, sum(SIZES), 3, 8, 8), dtype=torch.uint8, generator=generator)
    tags = torch.rand(sum(SIZES), 5, generator=generator) < 0.3
    return Batch(views[:, images], tags[images], [str(i) for i in range(len(tags[images]))], [])


def step(module: StyleModule, images: slice) -> dict[str, Any]:
    """One step of SGD with clipped gradients: the loss, their norm, the weights after it."""
    optimizer = torch.optim.SGD(module.parameters(), lr=10.0, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        loss = module.training_step(batch_of(images), 0)
        loss.backward()
        norm = clip_gradients(module.parameters(), 0.01, module.clip_mode)
        optimizer.step()
    return {"loss": loss.detach(), "norm": norm, "weights": deepcopy(full_state_dict(module.encoder))}


def describe_unequally(encoder: CSDEncoder, rank: int) -> Tensor:
    with torch.no_grad(), unsharded_weights(encoder):
        for number in range(rank):
            encoder(torch.randn(number + 1, 3, 8, 8))
        return encoder(torch.ones(1, 3, 8, 8))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 4), rank=rank, world_size=4)
    found: dict[str, object] = {}
    for shape in ((2, 2), (1, 4)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data_parallel", "tensor_parallel"))
        for way, settings in WAYS.items():
            module = module_of(**settings)
            module._device_mesh = mesh
            module.configure_model()
            parameters = list(module.encoder.parameters())
            assert all(isinstance(parameter, DTensor) for parameter in parameters)
            held = sum(parameter.to_local().numel() for parameter in parameters)  # type: ignore[attr-defined]
            images = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))
            first = step(module, images)
            described = describe_unequally(module.encoder, rank)  # type: ignore[arg-type]
            again = step(module, images)
            found[f"{shape[0]} nodes, {way}"] = {"first": first, "again": again, "one": described, "held": held}
    scalar = module_of()
    scalar.encoder.register_parameter("gain", nn.Parameter(torch.zeros(())))
    scalar._device_mesh = mesh
    with pytest.raises(StylesimError, match=r"trainer=fsdp cannot divide small .*: take trainer=ddp for it"):
        scalar.configure_model()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("sharded")
    mp.get_context("forkserver").set_forkserver_preload(["torch._dynamo", "stylesim.learning.style_module"])
    mp.start_processes(work, args=(str(folder),), nprocs=4, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(4)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("nodes", [1, 2])
def test_divided_weights_learn_what_whole_ones_learn(found: list[dict], nodes: int, way: str) -> None:
    module = module_of(**WAYS[way])
    first = step(module, slice(None))
    with torch.no_grad():
        one = module.encoder(torch.ones(1, 3, 8, 8))
    again = step(module, slice(None))
    assert first["norm"] > 0.01, "the clipping had nothing to do"
    whole = sum(parameter.numel() for parameter in module.parameters())
    for rank in range(4):
        here = found[rank][f"{nodes} nodes, {way}"]
        for name, expected in {"first": first, "again": again, "one": one}.items():
            torch.testing.assert_close(here[name], expected, atol=1e-5, rtol=1e-5)
    held = [found[rank][f"{nodes} nodes, {way}"]["held"] for rank in range(4)]
    assert sum(held) == nodes * whole, "each node holds everything once"
    assert max(held) < whole * nodes / 2


def test_divided_and_averaged_weights_are_refused() -> None:
    with pytest.raises(StylesimError, match=r"callbacks=ema .* trainer\.strategy=fsdp"):
        build_trainer(max_steps=1, accelerator="cpu", strategy="fsdp", callbacks=[EMAWeightAveraging()])
