"""Identify the encoder of a database, and refuse descriptors of another encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylesim.core.errors import DataError


def encoder_identity(meta: Mapping[str, Any], dim: int) -> dict[str, Any]:
    """Return what decides whether descriptors can be compared, from the `meta` of a DescriptorSet.

    Args:
        meta: Has `encoder` (name, weights, preprocessing), `encoder_digest`, `greyscale`, `recoloured` and `flips`. A
            missing entry is unknown, which is None.
        dim: Number of dimensions of a descriptor.
    """
    encoder = meta.get("encoder") or {}
    return {
        "dim": dim,
        "name": encoder.get("name"),
        "weights": encoder.get("weights"),
        "digest": meta.get("encoder_digest"),
        "preprocessing": encoder.get("preprocessing"),
        "licence": encoder.get("licence"),
        "greyscale": bool(meta.get("greyscale")),
        "recoloured": bool(meta.get("recoloured")),
        "flips": bool(meta.get("flips")),
    }


def descriptor_set_meta(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `meta` of a DescriptorSet, from which `encoder_identity` makes this identity."""
    encoder = {key: identity[key] for key in ("name", "weights", "preprocessing", "licence")}
    return {
        "encoder": {key: value for key, value in encoder.items() if value is not None},
        "encoder_digest": identity["digest"],
        "greyscale": identity["greyscale"],
        **({"recoloured": True} if identity.get("recoloured") else {}),
        "flips": identity["flips"],
    }


def refuse_other_encoder(database: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raise a DataError if descriptors were not made by the encoder of the database.

    Two encoders with the same digest are the same; without a digest, name and weights decide.

    Args:
        database: `encoder_identity` of the database.
        other: `encoder_identity` of the descriptors.
    """
    has_digests = bool(database["digest"] and other["digest"])
    keys = ["dim", "name", "greyscale", "recoloured", "flips", "digest" if has_digests else "weights"]
    differences = [
        f"{key} {_show(other[key])} instead of {_show(database[key])}" for key in keys if other[key] != database[key]
    ]
    mine, theirs = database["preprocessing"] or {}, other["preprocessing"] or {}
    # A key that only one of them has was added or dropped by another version of stylesim.
    differences += [
        f"preprocessing.{key} {_show(theirs[key])} instead of {_show(mine[key])}"
        for key in sorted(mine.keys() & theirs.keys())
        if _plain(mine[key]) != _plain(theirs[key])
    ]
    if differences:
        raise DataError(
            f"The descriptors are of another encoder than those of the database: {', '.join(differences)}. Embed the"
            f" images with the encoder of the database, {_show(database['name'])} ({_show(database['weights'])})."
        )


def _plain(value: Any) -> Any:
    """Return tuples as lists, as JSON does."""
    return list(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    return "unknown" if value is None else str(value)
