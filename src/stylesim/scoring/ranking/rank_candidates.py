"""Rank folders of images, or descriptors, from Python."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stylesim.core.devices import find_device
from stylesim.core.errors import ConfigError
from stylesim.core.files import sha256_of_file
from stylesim.core.images import ImageLike
from stylesim.data.candidate_folders import find_candidates
from stylesim.data.open_samples import open_samples
from stylesim.data.roots import Root, name_roots
from stylesim.encoders.backbones.feature_maps import FeatureMaps, lite0_maps
from stylesim.encoders.load import load_encoder
from stylesim.encoders.style_encoder import StyleEncoder
from stylesim.evaluation.embed import embed
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.ranking.candidate_ranking import CandidateRanking
from stylesim.scoring.ranking.content_pairs import ContentMeasurer, compare_with_content
from stylesim.scoring.ranking.rank_sets import ContentComparison, rank_sets
from stylesim.scoring.shared_images import find_copies

if TYPE_CHECKING:
    from stylesim.encoders.backbones.lpips import Lpips

Images = Mapping[str, ImageLike]
"""Images by id."""


class _Source(NamedTuple):
    """A set of descriptors, with its images if they are known."""

    descriptors: DescriptorSet
    images: Images


def rank(
    candidates: str | Sequence[str] | Mapping[str, str | DescriptorSet],
    reference: str | Path | DescriptorSet,
    *,
    encoder: StyleEncoder | str | None = None,
    content: str | Path | None = None,
    content_encoder: StyleEncoder | str = "pooled_lite0",
    maps: FeatureMaps | None = None,
    lpips: Lpips | None = None,
    label: str = "*",
    device: str = "auto",
    seed: int = 0,
) -> CandidateRanking:
    """Rank many sets of generated images by how much they resemble the same works in style.

    Args:
        candidates: A glob (`runs/*/samples`), a list of folders, a table with the columns `path` and `name`, or sets
            by name. Each is a folder of images, or descriptors.
        reference: The works: a folder of images, or descriptors.
        encoder: Embeds images: an encoder, or what `load_encoder` takes. Descriptors need none.
        content: A folder of content images, such as the photographs that were stylised. Each is compared with the
            images that have its file name.
        content_encoder: Its cosine is the content similarity: CLIP-I with `clip_vitb`.
        maps: Feature maps for CAS and CFSD; None is EfficientNet-Lite0, a stand-in for DINOv2 and VGG19.
        lpips: LPIPS, if it is wanted.
        label: Glob that selects the tags used as labels; in a folder of folders the tag of an image is its folder.
        device: "auto" is CUDA, MPS or CPU.
        seed: Seed of the resampling.

    Raises:
        ConfigError: If nothing is found, or images are given without an encoder.
        DataError: If a set has no image, or the sets cannot be compared.

    Example:
        >>> ranking = stylesim.rank("runs/*/samples", "works", encoder="csd_vitl")
        >>> ranking.table[["candidate", "style_similarity", "low", "high"]]
    """
    sets: dict[str, DescriptorSet] = {}
    if isinstance(candidates, Mapping):
        sets = {name: one for name, one in candidates.items() if isinstance(one, DescriptorSet)}
        paths = {name: str(one) for name, one in candidates.items() if not isinstance(one, DescriptorSet)}
        roots = find_candidates(paths)[0] if paths or not sets else {}
    else:
        roots = find_candidates(candidates)[0]
    encoder = load_encoder(encoder, device=device) if isinstance(encoder, str) else encoder
    opened = {name: _Source(one, {}) for name, one in sets.items()}
    opened |= {name: _open(root, encoder, device) for name, root in roots.items()}
    works = (
        _Source(reference, {})
        if isinstance(reference, DescriptorSet)
        else _open(name_roots([Path(reference).expanduser()])[0], encoder, device)
    )
    copies = {
        name: find_copies(
            one.descriptors,
            works.descriptors,
            {"generated": partial(_digests, one.images), "reference": partial(_digests, works.images)},
        )
        for name, one in opened.items()
    }
    comparison = None
    if content is not None:
        if isinstance(content_encoder, str):
            content_encoder = load_encoder(content_encoder, device=device)
        measurer = ContentMeasurer(content_encoder, maps or lite0_maps(), lpips or "LPIPS was not asked for.")
        comparison = _compare(measurer.to(find_device(device)), opened, content)
    descriptors = {name: one.descriptors for name, one in opened.items()}
    return rank_sets(descriptors, works.descriptors, label=label, copies=copies, content=comparison, seed=seed)


def _open(root: Root, encoder: StyleEncoder | None, device: str) -> _Source:
    if root.folder is not None and (root.folder / "descriptors.npy").is_file():
        return _Source(DescriptorSet.load(root.folder), {})
    if encoder is None:
        raise ConfigError(f"{root.location} holds images, so rank() needs an encoder, such as encoder='csd_vitl'.")
    samples = open_samples([root])
    images = {sample.id: sample.image for sample in samples if sample.image is not None}
    return _Source(embed(encoder, samples, device=device), images)


def _digests(images: Images, ids: Collection[str]) -> dict[str, str]:
    """Return the SHA-256 of images that are files or encoded bytes."""
    known = {id: image for id in ids if (image := images.get(id)) is not None}
    digests = {id: sha256_of_file(image) for id, image in known.items() if isinstance(image, str | Path)}
    return digests | {id: hashlib.sha256(image).hexdigest() for id, image in known.items() if isinstance(image, bytes)}


def _compare(measurer: ContentMeasurer, sources: Mapping[str, _Source], content: str | Path) -> ContentComparison:
    if without := [name for name, source in sources.items() if not source.images]:
        raise ConfigError(f"content= needs the images of each candidate, but {without[0]} is given by descriptors.")
    samples = open_samples(name_roots([Path(content).expanduser()]))
    contents = {sample.id: sample.image for sample in samples if sample.image is not None}
    tables = {
        name: compare_with_content(measurer, source.images, contents, name=name) for name, source in sources.items()
    }
    return ContentComparison(tables, measurer.names)
