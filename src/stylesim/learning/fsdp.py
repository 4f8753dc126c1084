"""Training an encoder whose weights, gradients and optimiser state are sharded among processes (FSDP2).

torch's `fully_shard` does the work, and Lightning's ModelParallelStrategy starts and saves it. This module decides
which parts of an encoder are sharded, and gathers them where the processes do different work.
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

from stylesim.core.errors import ConfigError
from stylesim.encoders.style_encoder import StyleEncoder


class ShardedStrategy(ModelParallelStrategy):
    """ModelParallelStrategy with the checkpoints of DDP: one file, with parameters in the order of the optimiser.

    Lightning numbers them in the order of the model, so it could not read the momentum of a run without sharding.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the unsharded state of an optimiser, with parameters numbered in its order; empty on ranks above 0."""
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_optimizer_state_dict(self.model, getattr(optimizer, "_optimizer", optimizer), options=options)
        numbers = {name: number for number, name in enumerate(self._names(optimizer))}
        return _rename_parameters(state, numbers) if state else state  # only rank 0 has a state

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = True) -> dict[str, Any]:
        """Load weights and optimiser states into the sharded model, and return the rest of the checkpoint."""
        assert self.model is not None
        path = self.broadcast(checkpoint_path)
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only)
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, checkpoint.pop("state_dict"), options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            names = dict(enumerate(self._names(optimizer)))
            set_optimizer_state_dict(self.model, optimizer, _rename_parameters(state, names), options=options)
        return checkpoint

    def _names(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """Return the names of the optimiser's parameters, in its order."""
        assert self.model is not None
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def _rename_parameters(state: dict[str, Any], names: dict[Any, Any]) -> dict[str, Any]:
    """Return an optimiser's state with its parameters under other names or numbers."""
    groups = [group | {"params": [names[old] for old in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[old]: value for old, value in state["state"].items()}, "param_groups": groups}


def shard_encoder(encoder: StyleEncoder, mesh: DeviceMesh) -> None:
    """Shard an encoder in place. The weights of a block are gathered while it is computed, and then freed.

    Args:
        encoder: The encoder, before its optimiser is built.
        mesh: Lightning's device mesh, `[nodes, devices of a node]`. Weights are sharded within a node and replicated
            across nodes, so that only gradients travel between nodes.

    Raises:
        ConfigError: If torch cannot shard the encoder.
    """
    mesh = mesh if mesh.size(0) > 1 else mesh["tensor_parallel"]  # Lightning's name for it
    for parameter in encoder.parameters():
        parameter.data = parameter.data.contiguous()  # channels_last cannot be sharded
    try:
        for block in _blocks(encoder):
            fully_shard(block, mesh=mesh)
        fully_shard(encoder, mesh=mesh)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"trainer=fsdp cannot shard {encoder.provenance.name} ({error}). Use trainer=ddp for this encoder."
        ) from error
    register_fsdp_forward_method(encoder, "heads")  # training calls it instead of forward()


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of the outermost module lists: layers of a transformer, stages of other networks."""
    for child in module.children():
        is_list = isinstance(child, nn.ModuleList | nn.Sequential)
        # A ModuleList is never called, so it cannot be a block itself.
        if is_list and not any(isinstance(member, nn.ModuleList) for member in child):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)


@contextmanager
def unsharded_weights(encoder: StyleEncoder) -> Iterator[None]:
    """Hold all weights on every process inside the block, so that each may call the encoder any number of times.

    Outside the block, all processes must call a sharded encoder equally often, because each call gathers the weights.
    Every process must enter and leave the block. For an encoder that is not sharded it has no effect.
    """
    sharded = [module for module in encoder.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(module is not encoder, recurse=False)
            module.reshard()


def full_state_dict(encoder: StyleEncoder, keep: bool = True) -> dict[str, Tensor]:
    """Return the unsharded state dict on the CPU. Tensors that are already there are not copied.

    Every process must call this function.

    Args:
        encoder: The encoder, sharded or not.
        keep: Whether this process needs the result; otherwise an empty dict is returned.
    """
    state = {}
    for name, value in encoder.state_dict().items():
        full = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            state[name] = full.detach().cpu()
    return state
