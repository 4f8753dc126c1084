"""Refuse to compare descriptor sets whose similarities would mean nothing."""

from __future__ import annotations

from stylesim.core.errors import DataError
from stylesim.retrieval.descriptor_set import DescriptorSet


def check_comparable(images: DescriptorSet, works: DescriptorSet, *, name: str = "images") -> None:
    """Check that images and works were embedded in the same way by the same encoder.

    Args:
        images: The images.
        works: The works that they are compared with.
        name: What the images are, for messages.

    Raises:
        DataError: If they were embedded by different encoders, or only one of them without colour or recoloured.
    """
    for colours in ("greyscale", "recoloured"):
        if bool(images.meta.get(colours)) != bool(works.meta.get(colours)):
            raise DataError(
                f"Both sets must be embedded with the same value of {colours}, got {colours}=true for only one of them."
                " Embed one of them again."
            )
    digests = [side.meta.get("encoder_digest") for side in (images, works)]
    dims = [side.descriptors.shape[1] for side in (images, works)]
    if dims[0] != dims[1] or (None not in digests and digests[0] != digests[1]):
        names = [(side.meta.get("encoder") or {}).get("name") for side in (images, works)]
        raise DataError(
            f"The {name} were embedded by {names[0]} ({digests[0]}, {dims[0]} dimensions) and the works by {names[1]} "
            f"({digests[1]}, {dims[1]} dimensions), and descriptors of different encoders cannot be compared. Embed one"
            " of the sets again."
        )
