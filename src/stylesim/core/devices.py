"""The device that a setting names, if this machine has it."""

from __future__ import annotations

import torch

from stylesim.core.errors import ConfigError


def pick_device() -> torch.device:
    """Return the current CUDA device, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def find_device(device: str | torch.device) -> torch.device:
    """Return a device that can be used; `auto` is that of `pick_device`.

    Raises:
        ConfigError: If the name is unknown, or this machine or this PyTorch does not have the device.
    """
    if device == "auto":
        return pick_device()
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:N or mps, got {device!r}.") from error
    try:
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend raises another class
        reason = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
        here = [f"cuda ({torch.cuda.device_count()})"] if torch.cuda.is_available() else []
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise ConfigError(
            f"device={device} cannot be used: {reason}. Use auto, or a device of this machine: "
            f"{', '.join([*here, 'cpu'])}."
        ) from error
    return torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else found
