"""GDA: linear maps tuned to attribute generated images to the works they were made from (Wang et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from stylesim.core.errors import ConfigError
from stylesim.encoders.backbones.vision_transformer import headless_state, vit
from stylesim.encoders.backbones.vit_shapes import ViTShape
from stylesim.encoders.baselines.clip_baseline import clip_vit
from stylesim.encoders.baselines.dino_and_moco import dino_vitb16
from stylesim.encoders.baselines.frozen_baseline import frozen_baseline
from stylesim.encoders.frozen_encoder import FrozenEncoder
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.style_encoder import Provenance
from stylesim.encoders.weights.locate import locate
from stylesim.encoders.weights.published import GDA_BACKBONES, KNOWN_WORDS, VIT_B_384
from stylesim.encoders.weights.weight_formats import load_strictly, read_weights
from stylesim.encoders.weights.weight_keywords import find_weights

VIT_B_16_384 = ViTShape(width=768, layers=12, heads=12, patch=16, image=384, embed=768, name="ViT-B-16 384")


class MappedFeatures(nn.Module):
    """Apply a linear layer with a bias to the features of a network; not normalised."""

    def __init__(self, network: nn.Module, mapper: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.mapper = mapper

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the mapped features of normalised images."""
        return self.mapper(self.network(images))


@rebuildable
def gda_clip(
    *,
    weights: str = "official",
    mapper: Literal["real", "synth"] = "real",
    backbone: str = "official",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """Build GDA on the image embedding of CLIP ViT-B/32, 512-d, with the preprocessing of CLIP.

    Args:
        weights: `official` (CC BY-NC-SA 4.0: no commercial use), a file of mappers, or `random`, which makes the
            backbone random too.
        mapper: Each file holds two mappers: `real` for works of art, the default because the queries and galleries of
            benchmarks are real, and `synth` for generated images that are compared with `real` ones.
        backbone: `official`, or a file of the backbone.
        image_size: Image size in pixels; None means that of the backbone.
        cache_dir: Folder of downloaded weights.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
        ConfigError: If the mapper is unknown.
    """
    build = partial(
        clip_vit, architecture="ViT-B-32", image_size=image_size, activation="quickgelu", cache_dir=cache_dir
    )
    return mapped("gda_clip", build, weights, mapper, backbone, cache_dir)


@rebuildable
def gda_dino(
    *,
    weights: str = "official",
    mapper: Literal["real", "synth"] = "real",
    backbone: str = "official",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """Build GDA on DINO ViT-B/16, 768-d. Arguments as for `gda_clip`."""
    build = partial(dino_vitb16, image_size=image_size, cache_dir=cache_dir)
    return mapped("gda_dino", build, weights, mapper, backbone, cache_dir)


@rebuildable
def gda_vit(
    *,
    weights: str = "official",
    mapper: Literal["real", "synth"] = "real",
    backbone: str = "official",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """Build GDA on the ImageNet classifier ViT-B/16 at 384 px, 768-d. Arguments as for `gda_clip`."""
    build = partial(_imagenet_vit, image_size=image_size, cache_dir=cache_dir)
    return mapped("gda_vit", build, weights, mapper, backbone, cache_dir)


def mapped(
    factory: str,
    build_backbone: Callable[..., FrozenEncoder],
    weights: str,
    mapper: str,
    backbone: str,
    cache_dir: str | None,
) -> FrozenEncoder:
    """Put one of the two linear layers of a mapper file behind a backbone.

    Args:
        factory: Name of the GDA factory in KNOWN_WORDS.
        build_backbone: Takes `weights` and returns the backbone as an encoder.
        weights: Keyword of the factory, or a file of mappers.
        mapper: `real` or `synth`.
        backbone: `weights` of the backbone; ignored with random mappers.
        cache_dir: Folder of downloaded weights.

    Raises:
        ConfigError: If the mapper is unknown.
        WeightsError: If the weights cannot be obtained or do not fit.
    """
    if mapper not in ("real", "synth"):
        raise ConfigError(f"mapper must be real or synth, got {mapper!r}.")
    if weights != "random" and backbone == "official":  # its own factory would name the wrong key in an error message
        locate(GDA_BACKBONES[factory], cache_dir, "model.backbone (in Python, backbone)")
    start = build_backbone(weights="random" if weights == "random" else backbone)
    found = find_weights(KNOWN_WORDS[factory], weights, cache_dir=cache_dir)
    pair = nn.ModuleDict({f"{name}_mapper": nn.Linear(start.dim, start.dim) for name in ("real", "synth")})
    if found.path:
        load_strictly(pair, read_weights(found.path).state, found.path)
    provenance = Provenance(
        f"GDA on {start.provenance.name}, {mapper}", weights, found.digest, found.licence or start.provenance.licence
    )
    return FrozenEncoder(MappedFeatures(start.network, pair[f"{mapper}_mapper"]), start.preprocessing, provenance)


def _imagenet_vit(weights: str, image_size: int | None, cache_dir: str | None) -> FrozenEncoder:
    preprocessing = Preprocessing(image_size or VIT_B_16_384.image, interpolation="bilinear")
    return frozen_baseline(VIT_B_384, vit(VIT_B_16_384, image_size), preprocessing, weights, cache_dir, headless_state)
