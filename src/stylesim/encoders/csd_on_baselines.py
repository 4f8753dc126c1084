"""CSD's heads on the backbone of a baseline: what the paper's initialisation ablation starts from (table 4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from stylesim.core.errors import StylesimError
from stylesim.core.files import sha256_of_file
from stylesim.encoders.baselines.common import WORDS
from stylesim.encoders.baselines.self_supervised import dino_vitb8, dino_vitb16, moco_vitb
from stylesim.encoders.baselines.sscd import sscd_rn50
from stylesim.encoders.csd import CSDEncoder, semi_orthogonal
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.formats import WeightFile, load_strictly, read_weights
from stylesim.encoders.weights.locate import require_weights

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
    """CSD that starts from a baseline: its network, all of it trainable, under random semi-orthogonal heads.

    `weights`: `official` or `random` as in the baseline's own factory, a file of the baseline's format, or a
    checkpoint of this encoder; `preset` and `image_size` are the baseline's. SSCD is read before its L2
    normalisation, 512 features; the transformers have 768. Raises StylesimError for weights that are not to
    be had or do not fit.
    """
    if backbone not in BACKBONES:
        raise StylesimError(f"backbone={backbone} is none of {', '.join(BACKBONES)}.")
    require_weights(weights, WORDS)
    file = None if weights in WORDS else read_weights(weights)
    ours = file if file and file.kind in ("stylesim", "lightning") else None
    start = BACKBONES[backbone](
        weights="random" if ours else weights, preset=preset, image_size=image_size, cache_dir=cache_dir
    )
    style, content = (semi_orthogonal(start.dim, dim) for _ in range(2))
    name = f"CSD on {start.provenance.name}"
    provenance = replace(start.provenance, name=name, weights=weights, trained_head=False)
    network = start.network.requires_grad_()
    encoder = CSDEncoder(network, style, content if content_head else None, start.preprocessing, provenance)
    if ours:
        _load(encoder, ours, weights)
    return encoder


def _load(encoder: CSDEncoder, file: WeightFile, path: str) -> None:
    state = dict(file.state)
    if encoder.content_head is None:
        state.pop("content_head", None)
    load_strictly(encoder, state, path)
    encoder.provenance = replace(encoder.provenance, digest=sha256_of_file(Path(path)), trained_head=file.trained_head)
