"""Embed images: turn samples into a DescriptorSet with an encoder."""

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

from stylesim.core.devices import find_device
from stylesim.core.errors import CorruptSampleError, DataError, StylesimError
from stylesim.core.file_names import printable
from stylesim.core.images import open_image
from stylesim.core.images.recolour import change_colours
from stylesim.core.progress import progress as show_progress
from stylesim.data.sample import Sample
from stylesim.retrieval.descriptor_set import DescriptorSet, bad_descriptors, item_table
from stylesim.retrieval.descriptor_writer import DescriptorBuffer, DescriptorWriter

if TYPE_CHECKING:
    from stylesim.encoders.preprocessing import Preprocessing
    from stylesim.encoders.style_encoder import StyleEncoder

BATCHES_AHEAD = 3
"""Number of batches that are decoded ahead of the one that the model processes."""


class NoImageEmbeddedError(DataError):
    """There are images, but none of them could be embedded.

    Attributes:
        damaged: (id, reason) of each image.
    """

    def __init__(self, damaged: list[tuple[str, str]]) -> None:
        name, reason = damaged[0]
        super().__init__(f"None of {len(damaged)} images could be embedded. The first is {name}: {reason}.")
        self.damaged = damaged


class _Decoded(NamedTuple):
    """A sample after decoding, without its encoded image."""

    position: int
    sample: Sample
    image: UInt8[Tensor, "3 s s"] | None
    problem: str


@torch.no_grad()  # not inference_mode, under which bf16 autocast on a CPU is many times slower
def embed(
    encoder: StyleEncoder,
    samples: Iterable[Sample],
    out: Path | str | None = None,
    *,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    greyscale: bool = False,
    recoloured: bool = False,
    precision: Literal["bf16", "fp16"] | None = None,
    flips: bool = False,
    accept_damaged: bool = False,
    progress: bool = True,
    rank: int = 0,
    world: int = 1,
) -> DescriptorSet:
    """Embed images in order, with the encoder in evaluation mode.

    Images that cannot be read, images whose descriptor is zero or not finite, and repeated ids are left out and
    listed in `meta["damaged"]` with the reason.

    Args:
        encoder: The encoder. It is moved to `device` and stays there.
        samples: The images.
        out: Folder of the resulting set, which must not exist. If the call is interrupted, repeat it with the same
            images and encoder to continue. None keeps the set in memory.
        batch_size: Images per forward pass.
        device: "auto" is CUDA, MPS or CPU, the first that is available.
        greyscale: Remove the colour of every image first.
        recoloured: Recolour every image first, at random by its key (see `Recolouring`): a palette then says little.
        precision: Autocast to bf16 or fp16.
        flips: Average the descriptors of an image and its mirror image, at twice the cost.
        accept_damaged: Embed what can be decoded of damaged JPEGs and PNGs.
        progress: Show a progress bar.
        rank: This process's rank. With a world size above 1, pass the whole source as `samples` on every rank. Each
            rank embeds the batches rank, rank + world, ... (into `<out>-<rank>-of-<world>`); join the parts with
            `gather_descriptor_set`.
        world: The world size.

    Returns:
        float32 descriptors of unit length, with the labels of their images.

    Raises:
        DataError: If no image can be embedded, if `out` exists, or if it was started with other images or another
            encoder.
    """
    device = find_device(device)
    if encoder.device != device:  # `to` would reshard a sharded encoder even if nothing changes
        encoder = encoder.to(device)
    meta = embedding_meta(encoder, greyscale=greyscale, precision=precision, flips=flips) | {
        "accept_damaged": accept_damaged
    }
    if recoloured:  # an entry only where it matters, so that sets begun by earlier versions can be continued
        meta["recoloured"] = True
    if out is None:
        writer = DescriptorBuffer(encoder.dim, meta)
    else:
        folder = out if world == 1 else f"{out}-{rank}-of-{world}"
        # The digest reads every weight, so it is computed only for a set that is saved.
        writer = DescriptorWriter(folder, encoder.dim, meta | {"encoder_digest": encoder.digest()})
    batches = _RankBatches(samples, batch_size, rank, world, done=set(writer.done))
    damaged: list[tuple[str, str]] = []
    with (
        _evaluation_mode(encoder),
        show_progress("embedding", batches.total(), show=progress and rank == 0) as advance,
    ):
        for batch in _decode(batches, encoder.preprocessing, greyscale, recoloured, accept_damaged):
            good = [decoded for decoded in batch if decoded.image is not None]
            vectors = _encode(encoder, good, device, precision, flips)
            bad = set(bad_descriptors(vectors).tolist())
            damaged += [(decoded.sample.id, decoded.problem) for decoded in batch if decoded.image is None]
            damaged += [(good[i].sample.id, "its descriptor is not finite, or zero") for i in sorted(bad)]
            keep = [i for i in range(len(good)) if i not in bad]
            writer.add(vectors[keep], item_table(_item(good[i]) for i in keep))
            advance(len(batch))
    batches.refuse_missing_images(out)
    damaged += [(name, "another image has the same id") for name in batches.repeated]
    if not writer.done and world == 1:
        raise _nothing_embedded(damaged)
    return writer.finish(**_image_meta(writer.done, damaged))


def embedding_meta(
    encoder: StyleEncoder, *, greyscale: bool = False, precision: str | None = None, flips: bool = False
) -> dict[str, Any]:
    """Return what the `meta` of a descriptor set says about how images are embedded, without the encoder's digest."""
    return {
        "encoder": asdict(encoder.provenance) | {"preprocessing": asdict(encoder.preprocessing)},
        "greyscale": greyscale,
        "precision": precision,
        "flips": flips,
    }


def gather_descriptor_set(part: DescriptorSet) -> DescriptorSet:
    """Join the parts that `embed` made on each rank.

    Args:
        part: The part of this rank.

    Returns:
        The whole set on every rank, in the order of the source and with each id once. It equals the set of a single
        process bit for bit. Without a process group, `part` is returned.

    Raises:
        DataError: If no rank has embedded an image.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return part
    parts: list[DescriptorSet] = [part] * dist.get_world_size()
    dist.all_gather_object(parts, DescriptorSet(np.asarray(part.descriptors), part.items, part.meta))
    rows = item_table(row for one in parts for row in one.items.itertuples(index=False, name=None))
    order = rows.sort_values("position", kind="stable").drop_duplicates("id").index.to_numpy()
    descriptors = np.concatenate([one.descriptors for one in parts])[order]
    items = rows.loc[order].reset_index(drop=True)
    damaged = [pair for one in parts for pair in one.damaged]
    if items.empty:
        raise _nothing_embedded(damaged)
    return DescriptorSet(descriptors, items, part.meta | _image_meta(items["id"], damaged))


class _RankBatches:
    """The batches of one rank, without the images that are already embedded.

    Images are divided into the same batches for every world size, because the last bit of a descriptor can depend on
    its batch.
    """

    def __init__(self, samples: Iterable[Sample], batch_size: int, rank: int, world: int, done: set[str]) -> None:
        self.samples, self.batch_size, self.rank, self.world, self.done = samples, batch_size, rank, world, done
        self.seen: set[str] = set()
        self.repeated: list[str] = []

    def total(self) -> int | None:
        """Return the number of images that remain to be embedded; None if the source has no length."""
        if not isinstance(self.samples, Sized):
            return None
        starts = range(self.rank * self.batch_size, len(self.samples), self.world * self.batch_size)
        return sum(min(self.batch_size, len(self.samples) - start) for start in starts) - len(self.done)

    def __iter__(self) -> Iterator[list[tuple[int, Sample]]]:
        numbered = enumerate(self.samples)
        for number in count():
            if not (batch := list(islice(numbered, self.batch_size))):
                return
            new, is_own = [], number % self.world == self.rank
            for position, sample in batch:
                if sample.id in self.seen:
                    self.repeated += [sample.id] if is_own else []
                elif sample.id not in self.done:
                    new.append((position, sample))
                self.seen.add(sample.id)
            if is_own:
                yield new

    def refuse_missing_images(self, out: Path | str | None) -> None:
        """Raise a DataError if images that were embedded before are not in the source."""
        if missing := self.done - self.seen:
            raise DataError(
                f"{out} was begun with other images: {len(missing)} of its images are not among those given now, such"
                f" as {min(missing)!r}. Delete {out}.partial, or choose another folder."
            )


def _decode(
    batches: Iterable[list[tuple[int, Sample]]],
    preprocessing: Preprocessing,
    greyscale: bool,
    recoloured: bool,
    accept_damaged: bool,
) -> Iterator[list[_Decoded]]:
    """Yield decoded batches in order. PIL and libjpeg release the GIL, so threads use all cores."""

    def decode(numbered: tuple[int, Sample]) -> _Decoded:
        position, sample = numbered
        labels = sample._replace(image=None)
        try:
            if sample.image is None:
                raise CorruptSampleError(sample.problem or "the sample has labels but no image")
            # At full size, because a JPEG decoded at half its size has other pixels.
            image = open_image(sample.image, colour=preprocessing.colour, accept_damaged=accept_damaged)
            image = change_colours(image, sample.id, greyscale=greyscale, recoloured=recoloured)
            return _Decoded(position, labels, preprocessing(image), "")
        except Exception as error:  # PIL can raise anything, and one bad image must not stop a run over a million
            if isinstance(error, StylesimError) and not isinstance(error, CorruptSampleError):
                raise
            return _Decoded(position, labels, None, printable(str(error)) or type(error).__name__)

    with ThreadPoolExecutor(max_workers=min(16, cpu_count() or 1)) as pool:
        waiting: deque[Iterator[_Decoded]] = deque()
        for batch in batches:
            waiting.append(pool.map(decode, batch))
            if len(waiting) > BATCHES_AHEAD:
                yield list(waiting.popleft())
        while waiting:
            yield list(waiting.popleft())


def _encode(
    encoder: StyleEncoder, batch: list[_Decoded], device: torch.device, precision: str | None, flips: bool
) -> Float[np.ndarray, "b d"]:
    if not (images := [decoded.image for decoded in batch if decoded.image is not None]):
        return np.empty((0, encoder.dim), dtype=np.float32)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision] if precision else None
    inputs = encoder.preprocessing.normalise(torch.stack(images).to(device)).to(encoder.dtype)
    inputs = inputs.contiguous(memory_format=torch.channels_last)  # convolutions on a CPU are nearly twice as fast
    with torch.autocast(device.type, dtype) if dtype else nullcontext():
        vectors = encoder(inputs)
        if flips:
            vectors = normalize(vectors + encoder(inputs.flip(3)), dim=1)
    return vectors.float().cpu().numpy()


def _item(decoded: _Decoded) -> tuple[str, list[str], str | None, str, int]:
    sample = decoded.sample
    return sample.id, list(sample.tags), sample.content, sample.source, decoded.position


@contextmanager
def _evaluation_mode(encoder: StyleEncoder) -> Iterator[None]:
    """Switch to evaluation mode, then restore the mode of each module; they may differ, as frozen parts do."""
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _image_meta(ids: Iterable[str], damaged: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the entries of `meta` about the images: a digest of the embedded ids, and the images left out."""
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]
    return {"data_digest": digest, "damaged": sorted(damaged)}


def _nothing_embedded(damaged: list[tuple[str, str]]) -> DataError:
    if not damaged:
        return DataError("There are no images to embed.")
    return NoImageEmbeddedError(damaged)
