"""The sizes of the vision transformers that CSD is built on; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from stylesim.core.errors import StylesimError


@dataclass(frozen=True)
class ViTShape:
    """CLIP's visual tower: width, layers, heads, patch and native image size in px; the width of `proj`."""

    width: int
    layers: int
    heads: int
    patch: int
    image: int
    embed: int
    name: str = "custom ViT"

    def as_config(self) -> str | dict[str, int]:
        """What `vit_shape` reads back: the name, or the sizes of a shape without one."""
        if self.name in SHAPES:
            return self.name
        return {key: value for key, value in asdict(self).items() if key != "name"}


SHAPES = {
    shape.name: shape
    for shape in (
        ViTShape(768, 12, 12, 32, 224, 512, "ViT-B-32"),
        ViTShape(768, 12, 12, 16, 224, 512, "ViT-B-16"),
        ViTShape(1024, 24, 16, 14, 224, 768, "ViT-L-14"),
        ViTShape(64, 2, 2, 8, 32, 32, "ViT-test"),  # the same code in milliseconds; no weights are published
    )
}


def vit_shape(architecture: str | Mapping[str, int] | ViTShape) -> ViTShape:
    """The shape behind a name or a mapping of all six sizes; raises StylesimError for anything else."""
    if isinstance(architecture, ViTShape):
        return architecture
    if isinstance(architecture, str):
        if architecture not in SHAPES:
            raise StylesimError(f"There is no architecture {architecture!r}: choose one of {', '.join(SHAPES)}.")
        return SHAPES[architecture]
    wanted = {field.name for field in fields(ViTShape)} - {"name"}
    if set(architecture) != wanted:
        raise StylesimError(
            f"An architecture given by its sizes needs exactly {', '.join(sorted(wanted))}; got "
            f"{', '.join(sorted(map(str, architecture))) or 'nothing'}."
        )
    return ViTShape(**{key: int(architecture[key]) for key in wanted})  # type: ignore[arg-type]


def check_image_size(shape: ViTShape, image_size: int) -> None:
    """Refuse in a sentence an image size that the patches do not tile."""
    if image_size < shape.patch or image_size % shape.patch:
        below = max(image_size // shape.patch, 1) * shape.patch
        raise StylesimError(
            f"image_size={image_size} is no multiple of the {shape.patch} px patches of {shape.name}: "
            f"take {below} or {below + shape.patch}."
        )
