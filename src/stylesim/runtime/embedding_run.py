"""Load the encoder that a command names, embed images with it, and find these images again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from stylesim.core.errors import StylesimError
from stylesim.core.files import sha256_of_file, write_json
from stylesim.core.run_folder import remove_results
from stylesim.data.roots import Root

if TYPE_CHECKING:
    from stylesim.core.images import ImageLike
    from stylesim.encoders import StyleEncoder
    from stylesim.retrieval.descriptor_set import DescriptorSet

ROOTS = "roots.json"
"""The file of a descriptor set that says where its images are: name of a root -> location."""
DAMAGED_SHOWN = 5
"""Number of damaged images that a message names; `meta.json` of the descriptor set names all of them."""

log = logging.getLogger(__name__)


def load_model(cfg: DictConfig) -> StyleEncoder:
    """Return the encoder of `checkpoint`, or of `model` if there is no checkpoint.

    Raises:
        WeightsError: If its style head is untrained and `allow_untrained` is false.
    """
    from stylesim.encoders.weights.checkpoint import load_checkpoint

    encoder = load_checkpoint(cfg.checkpoint) if cfg.checkpoint else instantiate(cfg.model)
    encoder.use_colour(cfg.colour)
    if not cfg.allow_untrained:
        encoder.provenance.require_trained_head()
    log.info("encoder: %s, weights: %s", encoder.provenance.name, encoder.provenance.weights)
    return encoder


def embed_roots(encoder: StyleEncoder, roots: list[Root], out: Path, cfg: DictConfig) -> DescriptorSet:
    """Embed the images of these roots into the folder `out`, with the settings of `cfg`.

    Damaged images are left out, counted and named.
    """
    from stylesim.data.open_samples import open_samples
    from stylesim.evaluation.embed import embed

    descriptors = embed(encoder, open_samples(roots), out, **embedding_options(cfg))
    write_json(out / ROOTS, {r.name: r.location if r.folder is None else str(r.folder.absolute()) for r in roots})
    for name, reason in descriptors.damaged[:DAMAGED_SHOWN]:
        log.warning("left out %s: %s", name, reason)
    if (more := len(descriptors.damaged) - DAMAGED_SHOWN) > 0:
        log.warning("left out %s more images, all named in %s", f"{more:,}", out / "meta.json")
    return descriptors


def embedding_options(cfg: DictConfig) -> dict[str, Any]:
    """Return the options of `evaluation.embed.embed` that a configuration sets."""
    return {key: cfg[key] for key in ("batch_size", "device", "precision", "flips", "accept_damaged")}


def is_descriptor_set(roots: list[Root]) -> bool:
    """Return whether an image source is a folder of descriptors that `stylesim embed` wrote."""
    return len(roots) == 1 and (Path(roots[0].location).expanduser() / "descriptors.npy").is_file()


def descriptor_folders(cfg: DictConfig, roots: Mapping[str, list[Root]]) -> dict[str, Path]:
    """Return the folder of descriptors of each side of a comparison; images are embedded first, into the run folder."""
    to_embed = [side for side in roots if not is_descriptor_set(roots[side])]
    folders = {
        side: Path(cfg.run_dir) / "descriptors" / side if side in to_embed else Path(of_side[0].location).expanduser()
        for side, of_side in roots.items()
    }
    encoder = load_model(cfg) if to_embed else None
    for side in to_embed:
        assert encoder is not None
        remove_results(folders[side].parent, [side])  # of an earlier run in this folder
        embed_roots(encoder, roots[side], folders[side], cfg)
    return folders


def image_roots(folder: Path) -> list[Root]:
    """Return where the images of a descriptor set are; empty if the set does not say so."""
    if not (folder / ROOTS).is_file():
        return []
    return [Root(location, name) for name, location in json.loads((folder / ROOTS).read_text(encoding="utf-8")).items()]


def find_digests(folder: Path, ids: Collection[str]) -> dict[str, str]:
    """Return the SHA-256 of the files of some images of a descriptor set by their ids, as far as they can be read."""
    from stylesim.data.open_samples import open_samples

    digests = {}
    with suppress(StylesimError):
        for sample in open_samples(image_roots(folder)):
            if sample.id in ids and isinstance(sample.image, Path):
                with suppress(OSError):
                    digests[sample.id] = sha256_of_file(sample.image)
            elif sample.id in ids and isinstance(sample.image, bytes):
                digests[sample.id] = hashlib.sha256(sample.image).hexdigest()
    return digests


def find_images(folder: Path, ids: Collection[str]) -> dict[str, ImageLike]:
    """Return the images of a descriptor set by their ids, reading each root once.

    Empty if the set does not say where its images are, or if they have been moved.
    """
    from stylesim.data.open_samples import open_samples

    try:
        return {s.id: s.image for s in open_samples(image_roots(folder)) if s.id in ids and s.image is not None}
    except StylesimError:
        return {}
