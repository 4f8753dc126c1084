"""The StyleModule: users' losses, and cached gradients on one process and on two gloo processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from omegaconf import DictConfig
from processes import preload_in_forkserver
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stylesim import train
from stylesim.core.errors import ConfigError
from stylesim.data.batch import Batch
from stylesim.encoders.csd_encoder import CSDEncoder
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance
from stylesim.learning.grad_clip import clip_gradients
from stylesim.learning.losses import CSDLoss, csd_loss
from stylesim.learning.style_module import StyleModule

CHUNKS = (None, 1, 2, 3, 100)
SIZES = ((5, 3), (4, 0))  # images of each rank, for two micro-batches; in the second, one rank has none


class Backbone(nn.Module):
    """A network whose activations are large compared with the images, and with an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(32 if i else 3, 32, 3, padding=1), nn.GELU()) for i in range(3)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(32), nn.Dropout(0.5))
        self.unused = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))


def encoder_of(content_head: bool) -> CSDEncoder:
    torch.manual_seed(0)
    heads = torch.randn(32, 4), torch.randn(32, 4) if content_head else None
    return CSDEncoder(Backbone(), *heads, Preprocessing(8), Provenance("small", "random"))


def attach(module: StyleModule) -> list[dict[str, Tensor]]:
    """Let the module train without a Trainer; returns the metrics that it logs at each step."""
    logged: list[dict[str, Tensor]] = []
    module._trainer = SimpleNamespace(global_step=3, max_steps=10)  # type: ignore[assignment]
    module.log = lambda *_, **__: None
    module.log_dict = lambda metrics, **__: logged.append(dict(metrics))  # type: ignore[method-assign]
    module.train()
    return logged


def module_of(grad_cache: int | None) -> StyleModule:
    module = StyleModule(encoder_of(True), CSDLoss(content_weight=0.3), grad_cache=grad_cache)
    attach(module)
    return module


def batch_of(images: slice, micro: int, of: int) -> Batch:
    generator = torch.Generator().manual_seed(micro)
    views = torch.randint(256, (2, of, 3, 8, 8), dtype=torch.uint8, generator=generator)
    tags = torch.rand(of, 5, generator=generator) < 0.3
    local = tags[images]
    return Batch(views[:, images], local, [str(i) for i in range(len(local))], [])


class Step(nn.Module):
    """A forward pass that is the training step, as Lightning has DDP call it."""

    def __init__(self, module: StyleModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Batch) -> Tensor:
        return self.module.training_step(batch, 0)


def train_step(rank: int, grad_cache: int | None) -> dict[str, object]:
    """Accumulate two micro-batches under DDP and clip; return the gradients, and what DDP saw and sent of them."""
    module = module_of(grad_cache)
    ready: dict[str, int] = {}
    for name, parameter in module.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: ready.update({name: ready.get(name, 0) + 1}))
    model = DistributedDataParallel(Step(module), find_unused_parameters=True)
    sent: list[int] = []

    def send(state, bucket):  # without annotations: DDP does not accept them as strings
        sent.append(bucket.buffer().numel())
        dist.all_reduce(bucket.buffer().div_(2))
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    model.register_comm_hook(None, send)
    losses = []
    for micro, sizes in enumerate(SIZES):
        with model.no_sync() if micro == 0 else nullcontext():
            loss = model(batch_of(slice(sum(sizes[:rank]), sum(sizes[: rank + 1])), micro, sum(sizes)))
            loss.backward()
        losses.append(loss.detach())
    norm = clip_gradients(module.parameters(), 0.1)
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {"losses": losses, "norm": norm, "gradients": gradients, "ready": ready, "sent": sent}


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 2), rank=rank, world_size=2)
    torch.save({chunk: train_step(rank, chunk) for chunk in CHUNKS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("cached")
    preload_in_forkserver()
    mp.start_processes(run_rank, args=(str(folder),), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("chunk", CHUNKS[1:])
def test_a_cached_step_equals_the_step_of_the_whole_batch_on_two_processes(results, chunk, rank):
    cached, whole = results[rank][chunk], results[rank][None]
    torch.testing.assert_close(cached["losses"], whole["losses"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cached["norm"], whole["norm"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cached["gradients"], whole["gradients"], atol=1e-5, rtol=1e-5)
    assert whole["norm"] > 0.1, "the gradients were too small to be clipped"
    assert cached["sent"] == whole["sent"], "the same number of values is sent, in the same buckets"
    used = [name for name in cached["ready"] if "unused" not in name]
    assert len(used) == 10  # four layers' weights and biases, and two heads
    assert all(cached["ready"][name] == len(SIZES) for name in used), "a gradient is complete when DDP sees it"


@pytest.mark.slow
def test_both_processes_have_the_same_gradients(results):
    for chunk in CHUNKS:
        assert results[0][chunk]["losses"] == results[1][chunk]["losses"]
        for name, gradient in results[0][chunk]["gradients"].items():
            assert torch.equal(gradient, results[1][chunk]["gradients"][name])


class PeakMemory(TorchDispatchMode):
    """Measures the largest number of bytes in tensors that are alive at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in tree_leaves(result):
            if isinstance(part, Tensor):
                storage = part.untyped_storage()
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.storages = {k: (storage, size) for k, (storage, size) in self.storages.items() if not storage.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.storages.values()))
        return result


def test_memory_grows_with_the_chunk_and_not_with_the_batch():
    def peak(grad_cache: int | None, images: int) -> int:
        module = module_of(grad_cache)
        with PeakMemory() as memory:
            module.training_step(batch_of(slice(0, images), 0, images), 0).backward()
        return memory.peak

    growth = {chunk: peak(chunk, 32) - peak(chunk, 16) for chunk in (None, 4)}
    assert growth[4] < growth[None] / 20
    assert peak(4, 32) < peak(None, 8)


@pytest.mark.parametrize(
    "more",
    [
        ["trainer.accumulate_grad_batches=2", "learning.clip_norm=0.5", "optim.head_lr=1.0", "optim.backbone_lr=1.0"],
        ["model.content_head=true", "loss.content_weight=0.5", "learning.grad_checkpointing=true"],
    ],
)
def test_a_run_with_cached_gradients_has_the_same_weights_as_one_without(
    more: list[str], composed: Callable[..., DictConfig]
):
    def weights(grad_cache: str) -> dict[str, Tensor]:
        cfg = composed("~data.probes.validation", "trainer.max_steps=3", f"learning.grad_cache={grad_cache}", *more)
        cfg.run_dir += grad_cache
        train.main(cfg)
        return load_file(Path(cfg.run_dir) / "checkpoints" / "last.safetensors")

    torch.testing.assert_close(weights("4"), weights("null"), atol=1e-5, rtol=1e-5)


def test_a_grad_cache_of_zero_images_is_refused():
    with pytest.raises(ConfigError, match=r"learning\.grad_cache must be a positive integer or null, got 0"):
        module_of(0)


class PullTogether(nn.Module):
    """A user's loss with the documented signature: one minus the mean similarity of the views of an image."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(
        self, views: Tensor, tags: Tensor, *, anchors: slice, content: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        similarity = (views[0] * views[1]).sum(dim=-1)
        total = self.scale * (1 - similarity)[anchors].sum() / len(tags)
        return total, {"similarity": similarity[anchors].sum().detach() / len(tags)}


def test_a_user_loss_trains_with_and_without_a_content_head():
    for content_head in (True, False):
        module = StyleModule(encoder_of(content_head), PullTogether(2.0))
        logged = attach(module)
        before = module.encoder.get_parameter("style_head").detach().clone()
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        for _ in range(3):
            optimizer.zero_grad()
            module.training_step(batch_of(slice(0, 4), 0, 4), 0).backward()
            optimizer.step()
        assert not torch.equal(module.encoder.get_parameter("style_head"), before)
        first, last = logged[0], logged[-1]
        assert last["train/loss"] < first["train/loss"]
        torch.testing.assert_close(last["train/loss"], 2 * (1 - last["train/similarity"]))


def test_a_function_is_a_loss_as_well():
    losses = []
    for loss in (CSDLoss(), partial(csd_loss, temperature=0.1, supervised_weight=1.0, ssl_weight=0.2)):
        module = StyleModule(encoder_of(False), loss)
        attach(module)
        losses.append(module.training_step(batch_of(slice(0, 4), 0, 4), 0))
    assert torch.equal(*losses)


def test_a_loss_with_trainable_parameters_is_refused():
    loss = PullTogether(1.0)
    loss.temperature = nn.Parameter(torch.ones(()))
    with pytest.raises(ConfigError, match="PullTogether has trainable parameters"):
        StyleModule(encoder_of(True), loss)


def test_a_content_term_needs_a_content_head():
    with pytest.raises(ConfigError, match=r"loss\.content_weight=0\.3 needs a content head, but small has none"):
        StyleModule(encoder_of(False), CSDLoss(content_weight=0.3))


def test_the_loss_adds_nothing_to_a_checkpoint():
    assert all(key.startswith("encoder.") for key in module_of(None).state_dict())
