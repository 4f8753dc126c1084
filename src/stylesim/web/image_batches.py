"""Embed the images of concurrent requests in common batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

BATCH = 32
"""Largest number of images in a batch."""


class ImageBatches:
    """Collects images while the encoder is busy, and embeds them together when it is free.

    Args:
        embed: Returns the descriptors `[b d]` of some encoded images. It is called in one thread at a time.
    """

    def __init__(self, embed: Callable[[Sequence[bytes]], Float[np.ndarray, "b d"]]) -> None:
        self._embed = embed
        self._waiting: asyncio.Queue[tuple[bytes, asyncio.Future[np.ndarray]]] = asyncio.Queue()

    async def __call__(self, images: Sequence[bytes]) -> Float[np.ndarray, "n d"]:
        """Return the descriptors of the images, in their order."""
        futures = [asyncio.get_running_loop().create_future() for _ in images]
        for pair in zip(images, futures, strict=True):
            self._waiting.put_nowait(pair)
        return np.stack(await asyncio.gather(*futures))

    async def run(self) -> None:
        """Embed batches until the task is cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [pair for pair in batch if not pair[1].done()]  # a visitor may have left
            if not batch:
                continue
            try:
                descriptors = await asyncio.to_thread(self._embed, [image for image, _ in batch])
                for (_, future), descriptor in zip(batch, descriptors, strict=True):
                    if not future.done():
                        future.set_result(descriptor)
            except Exception as error:  # one request's failure must not end the loop that serves all
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
