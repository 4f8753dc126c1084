"""Count the FLOPs of a forward pass, and look up the peak rate of a device."""

from __future__ import annotations

import torch
from jaxtyping import Float
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_H200_DENSE = {torch.bfloat16: 989.4e12, torch.float16: 989.4e12, torch.float32: 66.9e12}
_H200_TF32 = 494.7e12


def forward_flops(encoder: nn.Module, image: Float[Tensor, "1 3 h w"]) -> float:
    """Count the FLOPs of the forward pass of one image.

    Args:
        encoder: The encoder.
        image: A batch of one normalised image.

    Returns:
        The FLOPs; a multiplication and an addition count as two.
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # The fast path of nn.MultiheadAttention is one fused operator, whose FLOPs torch's counter does not count.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # With torch 2.11, a compiled module whose first call is counted would never be compiled.
        with torch.compiler.set_stance("force_eager"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return float(counter.get_total_flops())


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return the peak rate of a device for dense matrices in FLOP/s, from its datasheet; None if it is unknown."""
    if device.type != "cuda":
        return None
    # Lightning's table does not recognise the name of this card, and lists its rates for sparse matrices.
    if torch.cuda.get_device_name(device) == "NVIDIA H200":
        tf32 = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
        return _H200_TF32 if tf32 else _H200_DENSE.get(dtype)
    return get_available_flops(device, dtype)
