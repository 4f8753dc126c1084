"""measure(encoder, specs): from an encoder and retrieval sets to their figures, each image described once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylesim.data.items import open_items
from stylesim.data.roots import Root, name_roots
from stylesim.describe import describe, gather_descriptor_set
from stylesim.errors import StylesimError
from stylesim.retrieval.descriptors import DescriptorSet, concatenate
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
    roots = dict.fromkeys(root for spec in specs.values() for root in (*spec.query, *(spec.gallery or ())))
    # Named together, so that an image has one id in every set and different images have different ones.
    named = dict(zip(roots, name_roots(list(roots)), strict=True))
    described: dict[str, DescriptorSet] = {}

    def descriptors(locations: Sequence[str], greyscale: bool) -> DescriptorSet:
        names = [set_name(named[location], greyscale) for location in locations]
        for location, name in zip(locations, names, strict=True):
            if name not in described:
                path = folder / name if folder else None
                described[name] = _describe(encoder, named[location], greyscale, path, rank, world, describing)
        return concatenate([described[name] for name in names])

    results = {}
    for name, spec in specs.items():
        queries = descriptors(spec.query, spec.greyscale)
        gallery = descriptors(spec.gallery, spec.greyscale) if spec.gallery else None
        results[name] = evaluate_retrieval(queries, gallery, spec)
        if spec.distinct is not None:
            content = evaluate_retrieval(queries, gallery, spec.swapped()).figures
            results[name].figures.update({f"content_{k}": v for k, v in content.items() if "@" in k})
    return results


def set_name(root: Root, greyscale: bool) -> str:
    """The folder name of the DescriptorSet of a root."""
    return root.name.replace("/", "-") + ("-grey" if greyscale else "")


def _describe(
    encoder: StyleEncoder | None,
    root: Root,
    greyscale: bool,
    folder: Path | None,
    rank: int,
    world: int,
    describing: dict[str, Any],
) -> DescriptorSet:
    if encoder is None:
        if folder is None or not folder.is_dir():
            raise StylesimError(
                f"There are no descriptors of {root.location} in {folder}: evaluate with a model first."
            )
        return DescriptorSet.load(folder)
    out = folder if world == 1 else None
    share = describe(encoder, open_items([root]), out, greyscale=greyscale, rank=rank, world=world, **describing)
    whole = gather_descriptor_set(share)
    if folder is not None and out is None and rank == 0:
        DescriptorSet(whole.descriptors, whole.items, whole.meta | {"encoder_digest": encoder.digest()}).save(folder)
    return whole
