"""The sizes of vision transformers. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from stylesim.core.errors import ConfigError


@dataclass(frozen=True)
class ViTShape:
    """Sizes of a vision transformer.

    Args:
        width: Number of features of a token.
        layers: Number of transformer blocks.
        heads: Number of attention heads.
        patch: Side of a patch in pixels.
        image: Native image size in pixels.
        embed: Output width of CLIP's projection.
        name: Name of the architecture.
    """

    width: int
    layers: int
    heads: int
    patch: int
    image: int
    embed: int
    name: str = "custom ViT"


SHAPES = {
    shape.name: shape
    for shape in (
        ViTShape(768, 12, 12, 32, 224, 512, "ViT-B-32"),
        ViTShape(768, 12, 12, 16, 224, 512, "ViT-B-16"),
        ViTShape(1024, 24, 16, 14, 224, 768, "ViT-L-14"),
        ViTShape(64, 2, 2, 8, 32, 32, "ViT-test"),  # runs in milliseconds; no weights are published for it
    )
}


def vit_shape(architecture: str | Mapping[str, int]) -> ViTShape:
    """Return the shape for a name or for a mapping of all six sizes.

    Raises:
        ConfigError: If the name is unknown, or the mapping does not have exactly the six sizes.
    """
    if isinstance(architecture, str):
        if architecture not in SHAPES:
            raise ConfigError(f"architecture must be one of {', '.join(SHAPES)}, got {architecture!r}.")
        return SHAPES[architecture]
    sizes = {field.name for field in fields(ViTShape)} - {"name"}
    if set(architecture) != sizes:
        raise ConfigError(
            f"An architecture given by its sizes needs exactly {', '.join(sorted(sizes))}; got "
            f"{', '.join(sorted(map(str, architecture))) or 'none of them'}."
        )
    return ViTShape(**{key: int(architecture[key]) for key in sizes})  # type: ignore[arg-type]


def check_image_size(shape: ViTShape, image_size: int) -> None:
    """Raise a ConfigError if the image size is not a multiple of the patch size."""
    if image_size < shape.patch or image_size % shape.patch:
        smaller = max(image_size // shape.patch, 1) * shape.patch
        raise ConfigError(
            f"image_size={image_size} is not a multiple of {shape.patch}, the patch size of {shape.name} in pixels: "
            f"use {smaller} or {smaller + shape.patch}."
        )
