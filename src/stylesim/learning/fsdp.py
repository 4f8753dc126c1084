"""Training an encoder whose weights, gradients and optimiser state are divided among processes (FSDP2).

torch's `fully_shard` does the work and Lightning's ModelParallelStrategy starts and stores it; here is what of an
encoder is divided, and how it is made whole again where each process goes its own way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from stylesim.core.errors import StylesimError
from stylesim.encoders.style_encoder import StyleEncoder


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's, with checkpoints that are those of DDP: one file, and parameters numbered as an optimiser does.

    Lightning's own numbers them in the order of the model, and cannot read the momentum of a run that was not divided.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_optimizer_state_dict(self.model, getattr(optimizer, "_optimizer", optimizer), options=options)
        numbers = {name: number for number, name in enumerate(self._names(optimizer))}
        return _renamed(state, numbers) if state else state  # of rank 0 alone

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = True) -> dict[str, Any]:
        assert self.model is not None
        path = self.broadcast(checkpoint_path)
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only)
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, checkpoint.pop("state_dict"), options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            names = dict(enumerate(self._names(optimizer)))
            set_optimizer_state_dict(self.model, optimizer, _renamed(state, names), options=options)
        return checkpoint

    def _names(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """Of the optimiser's parameters, in its order."""
        assert self.model is not None
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def _renamed(state: dict[str, Any], names: dict[Any, Any]) -> dict[str, Any]:
    """The state of an optimiser with its parameters called otherwise."""
    groups = [group | {"params": [names[one] for one in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[one]: value for one, value in state["state"].items()}, "param_groups": groups}


def shard_encoder(encoder: StyleEncoder, mesh: DeviceMesh) -> None:
    """Divide an encoder in place: block after block is put together where it is computed, and let go again.

    `mesh` is Lightning's, `[nodes, devices of a node]`: weights are divided within a node and the same on each, so that
    only gradients travel between nodes. Raises StylesimError for what torch cannot divide.
    """
    mesh = mesh if mesh.size(0) > 1 else mesh["tensor_parallel"]  # Lightning's name for it
    for parameter in encoder.parameters():
        parameter.data = parameter.data.contiguous()  # convolutions lie otherwise, and cannot be divided so
    try:
        for block in _blocks(encoder):
            fully_shard(block, mesh=mesh)
        fully_shard(encoder, mesh=mesh)
    except (ValueError, NotImplementedError) as error:
        raise StylesimError(
            f"trainer=fsdp cannot divide {encoder.provenance.name} ({error}): take trainer=ddp for it."
        ) from error
    register_fsdp_forward_method(encoder, "heads")  # how training calls it


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of modules: the layers of a transformer, the stages of another network."""
    for child in module.children():
        listed = isinstance(child, nn.ModuleList | nn.Sequential)
        if listed and not any(isinstance(member, nn.ModuleList) for member in child):  # which nobody calls
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)


@contextmanager
def unsharded_weights(encoder: StyleEncoder) -> Iterator[None]:
    """While this is open each process holds all weights, and may use the encoder as often as it likes.

    Otherwise every process has to call it equally often, for each call puts the weights together anew. Every process
    opens and closes this; where nothing is divided it does nothing.
    """
    divided = [module for module in encoder.modules() if isinstance(module, FSDPModule)]
    for module in divided:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in divided:
            module.set_reshard_after_forward(module is not encoder, recurse=False)
            module.reshard()


def full_state_dict(encoder: StyleEncoder, keep: bool = True) -> dict[str, Tensor]:
    """The state dict on the CPU, every tensor whole; not copied where it is so already.

    Every process calls this; it is empty in those that do not `keep` it.
    """
    state = {}
    for name, value in encoder.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            state[name] = whole.detach().cpu()
    return state
