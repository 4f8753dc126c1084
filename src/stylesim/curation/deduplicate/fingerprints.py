"""Digests and a perceptual hash of an image: what tells copies before any network has seen them."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image

from stylesim.core.errors import StylesimError
from stylesim.core.images import decode_rgb
from stylesim.curation.stage import Piece, open_image_at

FINGERPRINTS = pa.schema(
    [
        ("id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.string()),  # SHA-256 of the file, 32 hex digits of it
        ("pixels", pa.string()),  # of the picture as it is decoded, and its size
        ("hash", pa.int64()),
        ("reason", pa.string()),  # why there is none of these, otherwise null
    ]
)


def fingerprints(table: pa.Table) -> Piece:
    """Fingerprints of the images of a part, in its order. Every image is decoded whole, so what is broken shows."""
    rows = [
        {"id": name} | _fingerprint(image)
        for name, image in zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True)
    ]
    return Piece(pa.Table.from_pylist(rows, FINGERPRINTS), {"images": len(rows)})


def _fingerprint(locator: str | None) -> dict[str, object]:
    if locator is None:
        return {"reason": "no image: only its URL is known"}
    try:
        data = open_image_at(locator)
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
    """64 bits, as a signed integer: which of two neighbours is brighter in the picture of 9 x 8 grey pixels."""
    small = np.asarray(Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX))
    return int(np.packbits(small[:, 1:] > small[:, :-1]).view(">i8")[0])
