"""Factories of the CSD encoders on CLIP, timm and EfficientNet-Lite0 backbones.

`weights` is a keyword (see each factory) or the path of a file, whose format is detected from its content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from stylesim.encoders.backbones.clip_tower import clip_preprocessing, clip_tower
from stylesim.encoders.backbones.lite0 import lite0_network, lite0_preprocessing
from stylesim.encoders.backbones.stage_statistics import PooledFeatures, StageStatistics
from stylesim.encoders.backbones.timm_backbone import timm_network, timm_preprocessing
from stylesim.encoders.backbones.vit_shapes import check_image_size, vit_shape
from stylesim.encoders.csd_encoder import CSDEncoder, semi_orthogonal
from stylesim.encoders.frozen_encoder import feature_count
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.style_encoder import Provenance
from stylesim.encoders.weights.clip_activation import Activation, clip_activation
from stylesim.encoders.weights.published import KNOWN_WORDS
from stylesim.encoders.weights.weight_formats import WeightFile, load_strictly, read_weights
from stylesim.encoders.weights.weight_keywords import find_weights


@rebuildable
def csd_clip(
    *,
    architecture: str | Mapping[str, int] = "ViT-B-16",
    weights: str = "clip",
    image_size: int = 224,
    content_head: bool = False,
    activation: Activation | None = None,
    cache_dir: str | None = None,
) -> CSDEncoder:
    """Build CSD as published, on CLIP's visual tower.

    Args:
        architecture: `ViT-B-16` (768 features, 512-d descriptors), `ViT-L-14` (1024 features, 768-d descriptors), or
            the sizes of a `ViTShape`.
        weights: `clip` (OpenAI's weights, both heads initialised as copies of its `proj`), `official` (the released
            CSD weights, ViT-L-14 only), `random`, or a file.
        image_size: Image size in pixels, a multiple of the patch size. Position embeddings are interpolated if needed.
        content_head: Whether to add the adversarial content head.
        activation: Activation of the transformer blocks: `quickgelu` (OpenAI's CLIP and the released CSD), `gelu` (most
            weights of open_clip and LAION), or None for the one that the weights state (`quickgelu`, with a warning, if
            they state none).
        cache_dir: Folder of downloaded weights.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
        ConfigError: If the architecture or the image size is invalid.
    """
    shape = vit_shape(architecture)
    check_image_size(shape, image_size)
    found = find_weights(KNOWN_WORDS["csd_clip"], weights, architecture, cache_dir)
    file = read_weights(found.path) if found.path else None
    activation = clip_activation(activation, found, file, shape.name)
    tower, proj = clip_tower(shape, image_size, activation)
    name = f"CSD {shape.name}{', GELU' if activation == 'gelu' else ''}"
    provenance = Provenance(name, weights, found.digest, found.licence, trained_head=False)
    encoder = CSDEncoder(tower, proj, proj if content_head else None, clip_preprocessing(image_size), provenance)
    if file:
        encoder.load_weight_file(file)
    encoder.config = {"activation": activation}
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
    """Build CSD on any backbone of timm, with random semi-orthogonal heads and the preprocessing that timm states.

    Args:
        name: Name of a timm model, such as `convnext_tiny`.
        weights: `pretrained` (timm's, from the Hugging Face hub), `random`, or a file.
        stages: Read channel means and standard deviations of these feature maps instead of the pooled features; true
            means all but the last.
        image_size: Image size in pixels; None means that of timm's configuration.
        dim: Length of a descriptor.
        content_head: Whether to add the adversarial content head.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
        ConfigError: If timm has no such model, or the model has no such stages.
    """
    found = find_weights(KNOWN_WORDS["csd_timm"], weights)
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
    """Build CSD on several stages of EfficientNet-Lite0, which is small enough to be trained on a CPU.

    Args:
        weights: `imagenet` (from an installed package), `random`, or a checkpoint of this encoder.
        stages: Stages to read. Stages 0 to 4 have strides 2, 4, 8, 16, 32 and 16, 24, 40, 112, 320 channels; each
            channel contributes its mean and its standard deviation.
        palette: Levels per colour channel of a palette (see `Palette`) that is appended to the features; None for none.
        image_size: Image size in pixels.
        dim: Length of a descriptor.
        content_head: Whether to add the adversarial content head.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
    """
    found = find_weights(KNOWN_WORDS["csd_lite0"], weights)
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
    """Add random heads to a backbone; a file that contains heads then replaces all weights."""
    features = feature_count(backbone, preprocessing.size)
    style, content = (semi_orthogonal(features, dim) for _ in range(2))
    encoder = CSDEncoder(backbone, style, content if content_head else None, preprocessing, provenance)
    if file and file.kind != "backbone":
        encoder.load_weight_file(file)
    return encoder
