"""Embed images and add them to a style database, so that an interrupted call can be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import open_image
from stylesim.core.progress import progress as show_progress
from stylesim.data.sample import Sample
from stylesim.evaluation.embed import NoImageEmbeddedError, embed, embedding_meta
from stylesim.retrieval.database.style_database import StyleDatabase
from stylesim.retrieval.descriptor_set import DescriptorSet

if TYPE_CHECKING:
    import pandas as pd

    from stylesim.encoders.style_encoder import StyleEncoder

BATCH_IMAGES = 2048
"""Images that are embedded and added in one transaction."""
THUMBNAIL = 160


class AddedImages(NamedTuple):
    """What `add_images` did with the images."""

    added: int
    present: int
    """Images that the database had already."""
    damaged: list[tuple[str, str]]
    """(id, reason) of the images that were left out."""


def open_database(location: Path | str, encoder: StyleEncoder, *, flips: bool = False) -> StyleDatabase:
    """Open a style database for the descriptors of an encoder, or create it.

    Args:
        location: A folder, or `postgresql://USER@HOST/DATABASE#SCHEMA`.
        encoder: Makes the descriptors.
        flips: Whether descriptors of an image and its mirror image are averaged.

    Raises:
        DataError: If the database holds descriptors of another encoder, or cannot be opened or created.
    """
    if not StyleDatabase.exists(location):
        meta = embedding_meta(encoder, flips=flips) | {"encoder_digest": encoder.digest()}
        return StyleDatabase.create(location, meta, encoder.dim)
    database = StyleDatabase.open(location)
    refuse_other_encoder(database, encoder, flips=flips)
    return database


def refuse_other_encoder(database: StyleDatabase, encoder: StyleEncoder, *, flips: bool = False) -> None:
    """Raise a DataError if the descriptors of an encoder cannot be compared with those of a database."""
    meta = embedding_meta(encoder, flips=flips) | {"encoder_digest": encoder.digest()}
    database.refuse_other_encoder(meta, encoder.dim)


def add_images(
    database: StyleDatabase,
    encoder: StyleEncoder,
    samples: Iterable[Sample],
    metadata: pd.DataFrame | None = None,
    *,
    thumbnail: int = THUMBNAIL,
    existing: Literal["skip", "replace"] = "skip",
    batch_size: int = 64,
    device: str = "auto",
    precision: Literal["bf16", "fp16"] | None = None,
    accept_damaged: bool = False,
    progress: bool = True,
) -> AddedImages:
    """Embed images and add them, in transactions of 2,048. A repeated call continues where the last one ended.

    Images that cannot be read are left out and named in the result.

    Args:
        database: As `open_database` returns it.
        encoder: The encoder of the database.
        samples: The images, of a folder, a table or shards.
        metadata: Further columns, as for `StyleDatabase.add`.
        thumbnail: Longer side of the stored thumbnails in pixels; 0 stores none.
        existing: Whether images whose ids the database has are skipped, or embedded again and replaced.
        batch_size: Images per forward pass.
        device: "auto" is CUDA, MPS or CPU, the first that is available.
        precision: Autocast to bf16 or fp16.
        accept_damaged: Add what can be decoded of damaged JPEGs and PNGs.
        progress: Show a progress bar.

    Raises:
        DataError: If the descriptors cannot be added; see `StyleDatabase.add`.
    """
    flips = database.encoder["flips"]
    added = present = 0
    damaged: list[tuple[str, str]] = []
    seen: set[str] = set()
    total = len(samples) if isinstance(samples, Sized) else None
    with (
        show_progress("adding", total, show=progress) as advance,
        ThreadPoolExecutor(min(16, cpu_count() or 1)) as pool,
    ):
        for batch in _batches(samples):
            new: dict[str, Sample] = {}
            for sample in batch:
                if sample.id in seen:
                    damaged.append((sample.id, "another image has the same id"))
                else:
                    new[sample.id] = sample
                    seen.add(sample.id)
            known = database.existing(list(new)) if existing == "skip" else set()
            present += len(known)
            todo = [sample for id, sample in new.items() if id not in known]
            if not todo:
                advance(len(batch))
                continue
            try:
                made = embed(
                    encoder,
                    todo,
                    batch_size=batch_size,
                    device=device,
                    precision=precision,
                    flips=flips,
                    accept_damaged=accept_damaged,
                    progress=False,
                )
            except NoImageEmbeddedError as error:
                damaged += error.damaged
            else:
                damaged += made.damaged
                if thumbnail:
                    made = _with_thumbnails(made, new, thumbnail, pool)
                added += database.add(made, metadata, existing=existing)
            advance(len(batch))
    return AddedImages(added, present, damaged)


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while batch := list(islice(iterator, BATCH_IMAGES)):
        yield batch


def _with_thumbnails(
    made: DescriptorSet, samples: dict[str, Sample], size: int, pool: ThreadPoolExecutor
) -> DescriptorSet:
    thumbnails = pool.map(lambda id: _thumbnail(samples[id], size), made.ids)
    return DescriptorSet(made.descriptors, made.items.assign(thumbnail=list(thumbnails)), made.meta)


def _thumbnail(sample: Sample, size: int) -> bytes | None:
    """Return a JPEG whose longer side has at most `size` pixels; None if the image cannot be read any more."""
    assert sample.image is not None
    try:
        image = open_image(sample.image, short_side=size, accept_damaged=True)
    except CorruptSampleError:
        return None
    image.thumbnail((size, size))
    file = BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
