"""embed(encoder, images): the one way from images to a DescriptorSet."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import count, islice
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from stylesim.core.devices import pick_device
from stylesim.core.errors import CorruptSampleError, StylesimError
from stylesim.core.images import open_image
from stylesim.core.progress import progress as show_progress
from stylesim.data.sample import Sample
from stylesim.retrieval.descriptor_set import DescriptorSet, bad_descriptors, item_table
from stylesim.retrieval.descriptor_writer import DescriptorBuffer, DescriptorWriter

if TYPE_CHECKING:
    from stylesim.encoders.preprocessing import Preprocessing
    from stylesim.encoders.style_encoder import StyleEncoder

AHEAD = 3
"""Batches that are decoded while the model is busy with one."""


class _Prepared(NamedTuple):
    position: int
    item: Sample
    image: UInt8[Tensor, "3 s s"] | None
    reason: str


@torch.no_grad()  # not inference_mode, under which bf16 autocast on a CPU is many times slower
def embed(
    encoder: StyleEncoder,
    items: Iterable[Sample],
    out: Path | str | None = None,
    *,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    greyscale: bool = False,
    precision: Literal["bf16", "fp16"] | None = None,
    flips: bool = False,
    progress: bool = True,
    rank: int = 0,
    world: int = 1,
) -> DescriptorSet:
    """Describe images, in evaluation mode, in their order.

    A damaged image, one whose descriptor is not finite or zero, and the second of two items with one id are
    left out and named in `meta["damaged"]` with the reason. With `out` the set is written there piece by
    piece: interrupted and called again with the same images and encoder, it goes on where it stopped.
    `greyscale` takes the colour out of every image first. `device`: "auto" is CUDA, MPS or CPU; the encoder
    moves there and stays. `precision`: autocast. `flips`: a descriptor is the normalised mean of the image's
    and of its mirror image's, for twice the work.

    With `world` > 1, `items` is the *whole* source in every process, and this one describes batches
    rank::world (to `<out>-<rank>-of-<world>`): put the shares together with `gather_descriptor_set`.

    Raises StylesimError where no image can be described, and where `out` exists or belongs to something else.
    """
    device = pick_device() if device == "auto" else torch.device(device)
    if encoder.device != device:  # even a move that changes nothing divides a sharded encoder anew
        encoder = encoder.to(device)
    meta = {
        "encoder": asdict(encoder.provenance) | {"preprocessing": asdict(encoder.preprocessing)},
        "greyscale": greyscale,
        "precision": precision,
        "flips": flips,
    }
    if out is None:
        writer = DescriptorBuffer(encoder.dim, meta)
    else:
        folder = out if world == 1 else f"{out}-{rank}-of-{world}"
        # Reading every weight is only worth its time where the set outlives the encoder.
        writer = DescriptorWriter(folder, encoder.dim, meta | {"encoder_digest": encoder.digest()})
    share = _Share(items, batch_size, rank, world, done=set(writer.done))
    damaged: list[tuple[str, str]] = []
    with (
        _evaluating(encoder),
        show_progress("describing", share.total(), show=progress and rank == 0) as advance,
    ):
        for batch in _prepared(share, encoder.preprocessing, greyscale):
            good = [one for one in batch if one.image is not None]
            vectors = _encode(encoder, good, device, precision, flips)
            bad = set(bad_descriptors(vectors).tolist())
            damaged += [(one.item.id, one.reason) for one in batch if one.image is None]
            damaged += [(good[i].item.id, "its descriptor is not finite, or zero") for i in sorted(bad)]
            keep = [i for i in range(len(good)) if i not in bad]
            writer.add(vectors[keep], item_table(_row(good[i]) for i in keep))
            advance(len(batch))
    share.refuse_strangers(out)
    damaged += [(name, "a second item with this id") for name in share.twice]
    if not writer.done and world == 1:
        raise _nothing(damaged)
    return writer.finish(**_of_images(writer.done, damaged))


def gather_descriptor_set(share: DescriptorSet) -> DescriptorSet:
    """The whole set on every process, from the shares that `describe` made with rank and world.

    In the order of the source, each id once: to the bit the set that one such process would have made
    alone. Without a process group the share is the whole.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return share
    shares: list[DescriptorSet] = [share] * dist.get_world_size()
    dist.all_gather_object(shares, DescriptorSet(np.asarray(share.descriptors), share.items, share.meta))
    rows = item_table(row for part in shares for row in part.items.itertuples(index=False, name=None))
    order = rows.sort_values("position", kind="stable").drop_duplicates("id").index.to_numpy()
    descriptors = np.concatenate([part.descriptors for part in shares])[order]
    items = rows.loc[order].reset_index(drop=True)
    damaged = [pair for part in shares for pair in part.damaged]
    if items.empty:
        raise _nothing(damaged)
    return DescriptorSet(descriptors, items, share.meta | _of_images(items["id"], damaged))


class _Share:
    """This process's batches, without what is done: the same batches, and so the same bits, for any world."""

    def __init__(self, items: Iterable[Sample], batch_size: int, rank: int, world: int, done: set[str]) -> None:
        self.items, self.batch_size, self.rank, self.world, self.done = items, batch_size, rank, world, done
        self.seen: set[str] = set()
        self.twice: list[str] = []

    def total(self) -> int | None:
        """Images still to do, where the source knows its length."""
        if not isinstance(self.items, Sized):
            return None
        starts = range(self.rank * self.batch_size, len(self.items), self.world * self.batch_size)
        return sum(min(self.batch_size, len(self.items) - start) for start in starts) - len(self.done)

    def __iter__(self) -> Iterator[list[tuple[int, Sample]]]:
        numbered = enumerate(self.items)
        for number in count():
            if not (batch := list(islice(numbered, self.batch_size))):
                return
            fresh, mine = [], number % self.world == self.rank
            for position, item in batch:
                if item.problem is not None:  # of a shard that breaks off, all that is missing has one id
                    fresh.append((position, item))
                    continue
                if item.id in self.seen:
                    self.twice += [item.id] if mine else []
                elif item.id not in self.done:
                    fresh.append((position, item))
                self.seen.add(item.id)
            if mine:
                yield fresh

    def refuse_strangers(self, out: Path | str | None) -> None:
        if strangers := self.done - self.seen:
            raise StylesimError(
                f"{out} was begun with other images: it holds {len(strangers)} that are not among "
                f"these, such as {min(strangers)!r}. Delete {out}.partial, or choose another folder."
            )


def _prepared(
    batches: Iterable[list[tuple[int, Sample]]], preprocessing: Preprocessing, greyscale: bool
) -> Iterator[list[_Prepared]]:
    """Decoded batches, in order. PIL and libjpeg release the GIL, so threads use every core."""

    def prepare(numbered: tuple[int, Sample]) -> _Prepared:
        position, item = numbered
        try:
            if item.image is None:
                raise CorruptSampleError(item.problem or "the sample has labels but no image")
            image = open_image(item.image)  # whole: a JPEG decoded at half its size has other pixels
            image = image.convert("L").convert("RGB") if greyscale else image
            return _Prepared(position, item._replace(image=None), preprocessing(image), "")
        except Exception as error:  # one hostile image among a million stops nothing
            return _Prepared(position, item._replace(image=None), None, str(error) or type(error).__name__)

    with ThreadPoolExecutor(max_workers=min(16, cpu_count() or 1)) as pool:
        waiting: deque[Iterator[_Prepared]] = deque()
        for batch in batches:
            waiting.append(pool.map(prepare, batch))
            if len(waiting) > AHEAD:
                yield list(waiting.popleft())
        while waiting:
            yield list(waiting.popleft())


def _encode(
    encoder: StyleEncoder, batch: list[_Prepared], device: torch.device, precision: str | None, flips: bool
) -> Float[np.ndarray, "b d"]:
    if not (images := [one.image for one in batch if one.image is not None]):
        return np.empty((0, encoder.dim), dtype=np.float32)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision] if precision else None
    inputs = encoder.preprocessing.normalise(torch.stack(images).to(device)).to(encoder.dtype)
    with torch.autocast(device.type, dtype) if dtype else nullcontext():
        vectors = encoder(inputs)
        if flips:
            vectors = normalize(vectors + encoder(inputs.flip(3)), dim=1)
    return vectors.float().cpu().numpy()


def _row(one: _Prepared) -> tuple[str, list[str], str | None, str, int]:
    return one.item.id, list(one.item.tags), one.item.content, one.item.source, one.position


@contextmanager
def _evaluating(encoder: StyleEncoder) -> Iterator[None]:
    """Evaluation mode, and afterwards every module's own mode again (a frozen part's may differ)."""
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _of_images(ids: Iterable[str], damaged: list[tuple[str, str]]) -> dict[str, Any]:
    """What the meta says of the images: a digest of those described, the names of those that were not."""
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]
    return {"data_digest": digest, "damaged": sorted(damaged)}


def _nothing(damaged: list[tuple[str, str]]) -> StylesimError:
    if not damaged:
        return StylesimError("No image could be described: there are none.")
    name, reason = damaged[0]
    return StylesimError(f"None of {len(damaged)} images could be described; the first is {name}: {reason}.")
