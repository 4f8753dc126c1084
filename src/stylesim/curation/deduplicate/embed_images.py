"""Embed the images of a stage and of evaluation sets for the search for near-duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from stylesim.core.errors import ConfigError, CorruptSampleError, WeightsError
from stylesim.curation.image_locator import read_image_bytes
from stylesim.data.sample import Sample

if TYPE_CHECKING:
    from stylesim.encoders.style_encoder import StyleEncoder
    from stylesim.retrieval.descriptor_set import DescriptorSet


@dataclass(frozen=True)
class StageImages:
    """Images of a stage in the form that `embed` takes, read one at a time."""

    ids: Sequence[str]
    locators: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sample]:
        for name, locator in zip(self.ids, self.locators, strict=True):
            image = None
            with suppress(CorruptSampleError):  # deleted since it was fingerprinted: `embed` counts it
                image = read_image_bytes(locator)
            yield Sample(name, image, [], None, locator)


class ImageEmbedder:
    """Embeds sets of images into folders. The encoder is loaded only if one of the folders is not finished yet.

    Args:
        make: A function that makes the encoder.
        checkpoint: Weights of a training run to use instead. None uses `make`.
        show: Whether to show progress.
    """

    def __init__(self, make: Callable[[], StyleEncoder], checkpoint: str | None, show: bool) -> None:
        self.make, self.checkpoint, self.show = make, checkpoint, show

    def __call__(self, samples: Any, folder: Path) -> DescriptorSet:
        """Embed samples, or load the descriptors from `folder` if it exists."""
        from stylesim.evaluation.embed import embed
        from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

        if folder.is_dir():
            return DescriptorSet.load(folder)
        if not len(samples):
            return DescriptorSet(np.empty((0, 1), dtype=np.float32), item_table(()))
        return embed(self.encoder, samples, folder, progress=self.show)

    def embed_roots(self, locations: Sequence[str], folder: Path) -> DescriptorSet:
        """Embed the images of shards, folders or tables, or load their descriptors from `folder` if it exists."""
        from stylesim.data.open_samples import open_samples
        from stylesim.data.roots import name_roots

        return self(open_samples(name_roots(locations)), folder)

    @cached_property
    def encoder(self) -> StyleEncoder:
        """The encoder.

        Raises:
            WeightsError: If its head was never trained.
        """
        from stylesim.encoders.weights.checkpoint import load_checkpoint

        return require_trained(load_checkpoint(self.checkpoint) if self.checkpoint else self.make())


def require_trained(encoder: StyleEncoder) -> StyleEncoder:
    """Return the encoder if its head is trained.

    Raises:
        WeightsError: If its head was never trained.
    """
    if not encoder.provenance.trained_head:
        raise WeightsError(
            f"The head of {encoder.provenance.name} has never been trained, so it cannot recognise copies: use"
            " model@deduplicate.encoder=sscd_reference, another encoder with trained weights, or a checkpoint."
        )
    return encoder


def whitening(
    descriptors: Float[np.ndarray, "n d"], axes: int
) -> Callable[[Float[np.ndarray, "m d"]], Float[np.ndarray, "m r"]]:
    """Return a function that scales descriptors to unit variance along the principal axes, and then to unit length.

    Args:
        descriptors: The descriptors to fit the axes on.
        axes: The number of principal axes.

    Raises:
        ConfigError: If there are too few descriptors: after whitening, all of them would be equally similar.
    """
    from stylesim.retrieval.pca import fit_pca

    if len(descriptors) <= axes + 1:
        raise ConfigError(
            f"deduplicate.whiten={axes} needs more than {axes + 1} images, got {len(descriptors):,}: otherwise all of"
            " them become equally similar. Use far fewer axes than there are images, or null."
        )
    fitted = fit_pca(descriptors, axes)
    return lambda vectors: fitted.project(vectors, whiten=True, unit=True)
