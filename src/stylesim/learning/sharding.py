"""Training an encoder whose weights, gradients and optimiser state are divided among processes (FSDP2).

torch's `fully_shard` does the work and Lightning's ModelParallelStrategy starts and stores it; here is what of an
encoder is divided, and how it is made whole again where each process goes its own way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from stylesim.encoders.base import StyleEncoder


def shard(encoder: StyleEncoder, mesh: DeviceMesh) -> None:
    """Divide an encoder in place: block after block is put together where it is computed, and let go again.

    `mesh` is Lightning's, `[nodes, devices of a node]`: weights are divided within a node and the same on each, so that
    only gradients travel between nodes.
    """
    mesh = mesh if mesh.size(0) > 1 else mesh["tensor_parallel"]  # Lightning's name for it
    for parameter in encoder.parameters():
        parameter.data = parameter.data.contiguous()  # convolutions lie otherwise, and cannot be divided so
    for block in _blocks(encoder):
        fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh)
    register_fsdp_forward_method(encoder, "heads")  # how training calls it


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of modules: the layers of a transformer, the stages of another network."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)


@contextmanager
def whole_weights(encoder: StyleEncoder) -> Iterator[None]:
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


def whole_state(encoder: StyleEncoder) -> dict[str, Tensor]:
    """The state dict on the CPU, every tensor whole; not copied where it is so already. Every process calls this."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()
        for name, value in encoder.state_dict().items()
    }
