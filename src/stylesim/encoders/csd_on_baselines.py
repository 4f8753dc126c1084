"""CSD on the backbone of a baseline, the starting points of the paper's initialisation ablation (table 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from stylesim.core.errors import ConfigError
from stylesim.core.files import sha256_of_file
from stylesim.encoders.baselines.dino_and_moco import dino_vitb8, dino_vitb16, moco_vitb
from stylesim.encoders.baselines.sscd import sscd_rn50
from stylesim.encoders.csd_encoder import CSDEncoder, semi_orthogonal
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.published import KNOWN_WORDS
from stylesim.encoders.weights.weight_formats import read_weights
from stylesim.encoders.weights.weight_keywords import require_weights

BACKBONES = {factory.__name__: factory for factory in (dino_vitb16, dino_vitb8, moco_vitb, sscd_rn50)}


@rebuildable
def csd_on(
    *,
    backbone: Literal["dino_vitb16", "dino_vitb8", "moco_vitb", "sscd_rn50"],
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    dim: int = 512,
    content_head: bool = False,
    cache_dir: str | None = None,
) -> CSDEncoder:
    """Build CSD on the network of a baseline, all of it trainable, with random semi-orthogonal heads.

    Args:
        backbone: The baseline. SSCD is read before its L2 normalisation (512 features); the others have 768 features.
        weights: `official` or `random` as in the baseline's own factory, a file in the baseline's format, or a
            checkpoint of this encoder.
        preset: Preprocessing of the baseline: `authors` or `reference`.
        image_size: Image size in pixels; None means that of the preset.
        dim: Length of a descriptor.
        content_head: Whether to add the adversarial content head.
        cache_dir: Folder of downloaded weights.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
        ConfigError: If the backbone or the preset is unknown.
    """
    if backbone not in BACKBONES:
        raise ConfigError(f"backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}.")
    words = KNOWN_WORDS[backbone]
    require_weights(weights, words)
    file = None if weights in words else read_weights(weights)
    checkpoint = file if file and file.kind in ("stylesim", "lightning") else None
    start = BACKBONES[backbone](
        weights="random" if checkpoint else weights, preset=preset, image_size=image_size, cache_dir=cache_dir
    )
    style, content = (semi_orthogonal(start.dim, dim) for _ in range(2))
    digest = sha256_of_file(checkpoint.path) if checkpoint else start.provenance.digest
    provenance = replace(
        start.provenance, name=f"CSD on {start.provenance.name}", weights=weights, digest=digest, trained_head=False
    )
    network = start.network.requires_grad_()
    encoder = CSDEncoder(network, style, content if content_head else None, start.preprocessing, provenance)
    if checkpoint:
        encoder.load_weight_file(checkpoint)
    return encoder
