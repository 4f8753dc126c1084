"""Compute digests and a perceptual hash of each image, which identify exact copies without a network."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image

from stylesim.core.errors import StylesimError
from stylesim.core.images import decode_rgb
from stylesim.core.stages.stage_parts import Part
from stylesim.curation.image_locator import read_image_bytes

FINGERPRINTS = pa.schema(
    [
        ("id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.string()),  # the first 32 hex digits of the SHA-256 of the file
        ("pixels", pa.string()),  # the same for the image size and the decoded pixels
        ("hash", pa.int64()),
        ("reason", pa.string()),  # why the image cannot be read, otherwise null
    ]
)


def fingerprints(table: pa.Table) -> Part:
    """Compute the fingerprints of the images of a part, in order. They are fully decoded, so that damage is found."""
    rows = [
        {"id": name} | _fingerprint(image)
        for name, image in zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True)
    ]
    return Part(pa.Table.from_pylist(rows, FINGERPRINTS), {"images": len(rows)})


def _fingerprint(locator: str | None) -> dict[str, object]:
    if locator is None:
        return {"reason": "no image: only its URL is known"}
    try:
        data = read_image_bytes(locator)
        pixels = decode_rgb(data)
    except (StylesimError, MemoryError) as error:
        return {"reason": f"unreadable: {str(error) or type(error).__name__}"}
    height, width, _ = pixels.shape
    return {
        "width": width,
        "height": height,
        "bytes": hashlib.sha256(data).hexdigest()[:32],
        "pixels": hashlib.sha256(f"{width} {height} ".encode() + pixels.tobytes()).hexdigest()[:32],
        "hash": difference_hash(pixels),
    }


def difference_hash(pixels: UInt8[np.ndarray, "h w 3"]) -> int:
    """Return whether each pixel of the 9 x 8 greyscale image is brighter than its left neighbour, as an int64."""
    small = np.asarray(Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX))
    return int(np.packbits(small[:, 1:] > small[:, :-1]).view(">i8")[0])
