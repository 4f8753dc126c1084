"""An encoder sharded among four gloo processes (one or two nodes), compared with one process that is not sharded."""

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
from processes import preload_in_forkserver
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from stylesim.core.errors import ConfigError
from stylesim.data.batch import Batch
from stylesim.encoders.csd_encoder import CSDEncoder
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance
from stylesim.learning.fsdp import full_state_dict, unsharded_weights
from stylesim.learning.grad_clip import clip_gradients
from stylesim.learning.losses import CSDLoss
from stylesim.learning.style_module import StyleModule
from stylesim.learning.trainer import build_trainer

SIZES = (3, 0, 2, 2)  # images of each rank; one has none left
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cached": {"grad_cache": 1},
    "per_tensor": {"clip_mode": "per_tensor"},
}


class Backbone(nn.Module):
    """Layers in a list, as in a transformer, between others; the rows of one do not divide evenly by four."""

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
    module.log = module.log_dict = lambda *_, **__: None
    return module.train()


def batch_of(images: slice) -> Batch:
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(256, (2, sum(SIZES), 3, 8, 8), dtype=torch.uint8, generator=generator)
    tags = torch.rand(sum(SIZES), 5, generator=generator) < 0.3
    return Batch(views[:, images], tags[images], [str(i) for i in range(len(tags[images]))], [])


def train_steps(module: StyleModule, images: slice, steps: int) -> dict[str, Any]:
    """Take SGD steps with clipped gradients; return the last loss and gradient norm, and the weights."""
    optimizer = torch.optim.SGD(module.parameters(), lr=10.0, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = module.training_step(batch_of(images), 0)
        loss.backward()
        norm = clip_gradients(module.parameters(), 0.01, module.clip_mode)
        optimizer.step()
    return {"loss": loss.detach(), "norm": norm, "weights": deepcopy(full_state_dict(module.encoder))}


def embed_unequally(encoder: CSDEncoder, rank: int) -> Tensor:
    """Embed a different number of batches on each rank; return the descriptor of a batch that all share."""
    with torch.no_grad(), unsharded_weights(encoder):
        for number in range(rank):
            encoder(torch.randn(number + 1, 3, 8, 8))
        return encoder(torch.ones(1, 3, 8, 8))


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 4), rank=rank, world_size=4)
    results: dict[str, object] = {}
    for shape in ((2, 2), (1, 4)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data_parallel", "tensor_parallel"))
        for name, settings in SETTINGS.items():
            module = module_of(**settings)
            module._device_mesh = mesh
            module.configure_model()
            parameters = list(module.encoder.parameters())
            assert all(isinstance(parameter, DTensor) for parameter in parameters)
            local = sum(parameter.to_local().numel() for parameter in parameters)
            images = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))
            first = train_steps(module, images, 2)
            embedded = embed_unequally(module.encoder, rank)
            second = train_steps(module, images, 1)
            results[f"{shape[0]} nodes, {name}"] = {
                "first": first,
                "second": second,
                "embedded": embedded,
                "local": local,
            }
    scalar = module_of()
    scalar.encoder.register_parameter("gain", nn.Parameter(torch.zeros(())))
    scalar._device_mesh = mesh
    with pytest.raises(ConfigError, match=r"trainer=fsdp cannot shard small .*\. Use trainer=ddp"):
        scalar.configure_model()
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("sharded")
    preload_in_forkserver()
    mp.start_processes(run_rank, args=(str(folder),), nprocs=4, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("nodes", [1, 2])
def test_sharded_training_equals_unsharded_training(results: list[dict], nodes: int, name: str) -> None:
    module = module_of(**SETTINGS[name])
    first = train_steps(module, slice(None), 2)
    with torch.no_grad():
        embedded = module.encoder(torch.ones(1, 3, 8, 8))
    second = train_steps(module, slice(None), 1)
    assert first["norm"] > 0.01, "the gradients were too small to be clipped"
    total = sum(parameter.numel() for parameter in module.parameters())
    for rank in range(4):
        actual = results[rank][f"{nodes} nodes, {name}"]
        for key, expected in {"first": first, "second": second, "embedded": embedded}.items():
            torch.testing.assert_close(actual[key], expected, atol=1e-5, rtol=1e-5)
    local = [results[rank][f"{nodes} nodes, {name}"]["local"] for rank in range(4)]
    assert sum(local) == nodes * total, "each node holds every weight once"
    assert max(local) < total * nodes / 2


def test_sharding_with_averaged_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"callbacks=ema .* trainer\.strategy=fsdp"):
        build_trainer(max_steps=1, accelerator="cpu", strategy="fsdp", callbacks=[EMAWeightAveraging()])
