"""The CSD encoders that a config can name as its `_target_`.

`weights` is a word (see each) or the path of a file, whose kind is told by its content
(`stylesim.encoders.weights.formats`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from stylesim.encoders.backbones.clip_tower import clip_preprocessing, clip_tower, resize_positions
from stylesim.encoders.backbones.lite0 import lite0_network, lite0_preprocessing
from stylesim.encoders.backbones.stage_statistics import PooledFeatures, StageStatistics
from stylesim.encoders.backbones.timm_backbone import timm_network, timm_preprocessing
from stylesim.encoders.backbones.vit_shapes import check_image_size, vit_shape
from stylesim.encoders.base import Preprocessing, Provenance
from stylesim.encoders.csd import CSDEncoder, semi_orthogonal, width_of
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.formats import WeightFile, load_strictly, read_weights
from stylesim.encoders.weights.locate import find_weights


@rebuildable
def csd_clip(
    *,
    architecture: str | Mapping[str, int] = "ViT-B-16",
    weights: str = "clip",
    image_size: int = 224,
    content_head: bool = False,
    cache_dir: str | None = None,
) -> CSDEncoder:
    """CSD as published, on CLIP's visual tower: `ViT-B-16` (768 to 512) or `ViT-L-14` (1024 to 768 numbers).

    `weights`: `clip` (OpenAI's, both heads copies of its `proj`), `official` (CSD as released, ViT-L-14
    only), `random`, or a file. `architecture` may also give the sizes of `ViTShape`. Position embeddings are
    interpolated where `image_size` asks for it. Raises StylesimError for weights that are not to be had or do
    not fit.
    """
    shape = vit_shape(architecture)
    check_image_size(shape, image_size)
    found = find_weights("csd_clip", weights, architecture, cache_dir)
    file = read_weights(found.path) if found.path else None
    tower, proj = clip_tower(shape, image_size)
    provenance = Provenance(f"CSD {shape.name}", weights, found.digest, found.licence, trained_head=False)
    encoder = CSDEncoder(tower, proj, proj if content_head else None, clip_preprocessing(image_size), provenance)
    if file:
        _load(encoder, file)
    return encoder


@rebuildable
def csd_timm(
    *,
    name: str,
    weights: str = "pretrained",
    stages: bool | Sequence[int] = False,
    image_size: int | None = None,
    dim: int = 512,
    content_head: bool = False,
) -> CSDEncoder:
    """CSD on any backbone of timm, with random semi-orthogonal heads; size, mean and deviation as timm says.

    `stages` reads channel means and deviations of several feature maps instead of the pooled features: a list
    of indices, or true for all but the last. `weights`: `pretrained` (timm's, from the hub), `random`, or a
    file.
    """
    found = find_weights("csd_timm", weights)
    network = timm_network(name, weights == "pretrained", image_size)
    preprocessing = timm_preprocessing(network, image_size)
    file = read_weights(found.path) if found.path else None
    if file and file.kind == "backbone":
        load_strictly(network, file.state, file.path)
    if stages is True:
        stages = range(len(network.feature_info) - 1)
    backbone = StageStatistics(network, stages, preprocessing) if stages else PooledFeatures(network)
    licence = network.pretrained_cfg.get("license") if weights == "pretrained" else None
    provenance = Provenance(f"CSD {name}", weights, found.digest, licence, trained_head=False)
    return _with_random_heads(backbone, dim, content_head, preprocessing, provenance, file)


@rebuildable
def csd_lite0(
    *,
    weights: str = "imagenet",
    stages: Sequence[int] = (0, 1, 2, 3),
    palette: int | None = None,
    image_size: int = 96,
    dim: int = 512,
    content_head: bool = False,
) -> CSDEncoder:
    """CSD on EfficientNet-Lite0, read at several stages; small enough to train on a CPU.

    `stages` 0 to 4 lie at strides 2, 4, 8, 16, 32 with 16, 24, 40, 112, 320 channels; each channel gives its
    mean and its deviation. `palette`: so many levels of each colour channel, whose counts the head sees as
    well. `weights`: `imagenet` (from an installed package), `random`, or a checkpoint of this encoder.
    """
    found = find_weights("csd_lite0", weights)
    preprocessing = lite0_preprocessing(image_size)
    file = read_weights(found.path) if found.path else None
    network = lite0_network(file.state if file and file.kind == "backbone" else None)
    backbone = StageStatistics(network, stages, preprocessing, palette)
    provenance = Provenance("CSD lite0", weights, found.digest, found.licence, trained_head=False)
    return _with_random_heads(backbone, dim, content_head, preprocessing, provenance, file)


def _with_random_heads(
    backbone: nn.Module,
    dim: int,
    content_head: bool,
    preprocessing: Preprocessing,
    provenance: Provenance,
    file: WeightFile | None,
) -> CSDEncoder:
    """Heads on any backbone; a file that holds more than the backbone replaces all of it."""
    features = width_of(backbone, preprocessing.size)
    style, content = (semi_orthogonal(features, dim) for _ in range(2))
    encoder = CSDEncoder(backbone, style, content if content_head else None, preprocessing, provenance)
    if file and file.kind != "backbone":
        _load(encoder, file)
    return encoder


def _load(encoder: CSDEncoder, file: WeightFile) -> None:
    """Fit a file's state to the encoder and load it strictly."""
    state = dict(file.state)
    if encoder.content_head is None:
        state.pop("content_head", None)
    key, own = "backbone.positional_embedding", encoder.state_dict()
    if key in state and key in own:
        state[key] = resize_positions(state[key], len(own[key]))
    load_strictly(encoder, state, file.path)
    encoder.provenance = replace(encoder.provenance, trained_head=file.trained_head)
