"""Turn an out-of-memory error into advice on which settings to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stylesim.core.errors import ConfigError


@contextmanager
def advise_on_out_of_memory(batch_size: int, grad_cache: int | None = None) -> Iterator[None]:
    """Raise a ConfigError that names settings to try if torch runs out of memory inside the block.

    Args:
        batch_size: Images per process.
        grad_cache: Number of images encoded at a time; None for all of them.

    Raises:
        ConfigError: If memory runs out.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _advice(batch_size, grad_cache) from error
    except RuntimeError as error:
        # On a CPU and on MPS, running out of memory raises a plain RuntimeError.
        if not any(words in str(error) for words in ("can't allocate memory", "out of memory")):
            raise
        raise _advice(batch_size, grad_cache) from error


def _advice(batch_size: int, grad_cache: int | None) -> ConfigError:
    half, chunk = max(1, batch_size // 2), max(1, (grad_cache or batch_size) // 2)
    return ConfigError(
        f"Out of memory with data.batch_size={batch_size} per process. Try data.batch_size={half}, or"
        " learning.grad_checkpointing=true, or trainer.precision=bf16-mixed."
        f" learning.grad_cache={chunk} keeps the batch with all its negatives, and encodes {chunk} images at a time."
    )
