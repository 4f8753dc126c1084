"""GDA: linear maps that were tuned to attribute generated images to the works they came from (Wang et al. 2023)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from stylesim.core.errors import StylesimError
from stylesim.encoders.backbones.vit_shapes import ViTShape
from stylesim.encoders.base import Preprocessing, Provenance
from stylesim.encoders.baselines.clip import clip_vit
from stylesim.encoders.baselines.common import frozen_baseline
from stylesim.encoders.baselines.self_supervised import dino_vitb16, fit_positions, vit
from stylesim.encoders.controls import FrozenEncoder
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.formats import State, load_strictly, read_weights
from stylesim.encoders.weights.locate import find_weights
from stylesim.encoders.weights.published import VIT_B_384

VIT_B_16_384 = ViTShape(width=768, layers=12, heads=12, patch=16, image=384, embed=768, name="ViT-B-16 384")


class MappedFeatures(nn.Module):
    """`network`, then one linear layer with a bias; not normalised."""

    def __init__(self, network: nn.Module, mapper: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.mapper = mapper

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
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
    """GDA on CLIP ViT-B/32's image embedding, 512-d.

    A file holds two mappers: `real`, for works of art, the default because a benchmark's queries and galleries
    are such; and `synth`, for generated images that are to be compared with `real` ones. `weights`: `official`
    (CC BY-NC-SA 4.0: no commercial use), a file of mappers, or `random`, which the backbone then is too; `backbone`:
    `official`, or its file. The preprocessing is the backbone's own. Raises StylesimError for weights that are
    not to be had or do not fit.
    """
    backbone = "random" if weights == "random" else backbone
    start = clip_vit(architecture="ViT-B-32", weights=backbone, image_size=image_size, cache_dir=cache_dir)
    return mapped(start, "gda_clip", weights, mapper, cache_dir)


@rebuildable
def gda_dino(
    *,
    weights: str = "official",
    mapper: Literal["real", "synth"] = "real",
    backbone: str = "official",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """GDA on DINO ViT-B/16, 768-d; the rest as `gda_clip`."""
    backbone = "random" if weights == "random" else backbone
    start = dino_vitb16(weights=backbone, image_size=image_size, cache_dir=cache_dir)
    return mapped(start, "gda_dino", weights, mapper, cache_dir)


@rebuildable
def gda_vit(
    *,
    weights: str = "official",
    mapper: Literal["real", "synth"] = "real",
    backbone: str = "official",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """GDA on the ImageNet classifier ViT-B/16 at 384 px, 768-d; the rest as `gda_clip`."""
    backbone = "random" if weights == "random" else backbone
    size = image_size or VIT_B_16_384.image
    preprocessing = Preprocessing(size, interpolation="bilinear")
    network = vit(VIT_B_16_384, size)
    start = frozen_baseline(VIT_B_384, network, preprocessing, backbone, cache_dir, _without_classifier)
    return mapped(start, "gda_vit", weights, mapper, cache_dir)


def mapped(start: FrozenEncoder, factory: str, weights: str, mapper: str, cache_dir: str | None) -> FrozenEncoder:
    """`start` with a linear layer behind it, one of the two in the file that `weights` of `factory` stands for."""
    found = find_weights(factory, weights, cache_dir=cache_dir)
    pair = nn.ModuleDict({f"{name}_mapper": nn.Linear(start.dim, start.dim) for name in ("real", "synth")})
    if f"{mapper}_mapper" not in pair:
        raise StylesimError(f"mapper={mapper} is none of real, synth.")
    if found.path:
        load_strictly(pair, read_weights(found.path).state, found.path)
    provenance = Provenance(
        f"GDA on {start.provenance.name}, {mapper}", weights, found.digest, found.licence or start.provenance.licence
    )
    return FrozenEncoder(MappedFeatures(start.network, pair[f"{mapper}_mapper"]), start.preprocessing, provenance)


def _without_classifier(state: State, network: nn.Module) -> State:
    return fit_positions({key: value for key, value in state.items() if not key.startswith("head.")}, network)
