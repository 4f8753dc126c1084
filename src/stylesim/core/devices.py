"""The device that `device=auto` stands for."""

from __future__ import annotations

import torch


def pick_device() -> torch.device:
    """Return the current CUDA device, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
