"""measure(encoder, specs): from an encoder and retrieval sets to their figures, each image described once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylesim.data.items import open_items
from stylesim.describe import describe, gather_descriptor_set
from stylesim.errors import StylesimError
from stylesim.retrieval.descriptors import DescriptorSet
from stylesim.retrieval.evaluate import Retrieval, evaluate_retrieval
from stylesim.retrieval.spec import RetrievalSpec

if TYPE_CHECKING:
    from stylesim.encoders import StyleEncoder


def measure(
    encoder: StyleEncoder | None,
    specs: Mapping[str, RetrievalSpec],
    folder: Path | None = None,
    *,
    rank: int = 0,
    world: int = 1,
    **describing: Any,
) -> dict[str, Retrieval]:
    """Describe the images of every retrieval set, and evaluate it.

    Sets that share images share their descriptors. The figures of a set with `distinct` hold its content score as well
    (`content_recall@1`, ...): same content, other styles only.

    Args:
        encoder: None reads the descriptors that an earlier call left in `folder`, and needs no model.
        folder: Where the DescriptorSets are kept; None keeps them in memory.
        rank, world: This process's share of the describing; every process gets all figures.
        describing: Further arguments of `describe` (batch size, device, precision, progress).

    Raises:
        StylesimError: If there is no encoder and no DescriptorSet for a retrieval set.
    """
    described: dict[str, DescriptorSet] = {}

    def descriptors(roots: Sequence[str], greyscale: bool) -> DescriptorSet:
        name = set_name(roots, greyscale)
        if name not in described:
            described[name] = _describe(
                encoder, roots, greyscale, folder and folder / name, rank, world, describing
            )
        return described[name]

    results = {}
    for name, spec in specs.items():
        queries = descriptors(spec.query, spec.greyscale)
        gallery = descriptors(spec.gallery, spec.greyscale) if spec.gallery else None
        results[name] = evaluate_retrieval(queries, gallery, spec)
        if spec.distinct is not None:
            content = evaluate_retrieval(queries, gallery, spec.swapped()).figures
            results[name].figures.update({f"content_{k}": v for k, v in content.items() if "@" in k})
    return results


def set_name(roots: Sequence[str], greyscale: bool) -> str:
    """The folder name of the DescriptorSet of some roots: readable, and different for different roots."""
    readable = "+".join(Path(root).name for root in roots)
    digest = hashlib.sha256("\n".join(roots).encode()).hexdigest()[:6]
    return f"{readable}{'-grey' if greyscale else ''}-{digest}"


def _describe(
    encoder: StyleEncoder | None,
    roots: Sequence[str],
    greyscale: bool,
    folder: Path | None,
    rank: int,
    world: int,
    describing: dict[str, Any],
) -> DescriptorSet:
    if folder is not None and folder.is_dir():
        return DescriptorSet.load(folder)
    if encoder is None:
        raise StylesimError(
            f"There are no descriptors of {', '.join(roots)} in {folder}: evaluate with a model first."
        )
    out = folder if world == 1 else None
    share = describe(
        encoder, open_items(roots), out, greyscale=greyscale, rank=rank, world=world, **describing
    )
    return gather_descriptor_set(share)
