"""Record which evaluation sets a training set was cleared of, in a note that is kept next to its shards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylesim.core.errors import DataError
from stylesim.core.files import sha256_of_text, write_json

CONTAMINATION = "contamination.json"


def checked_against(root: str | Path) -> list[str]:
    """Return which evaluation sets a folder of training data was cleared of.

    Args:
        root: The folder.

    Returns:
        One sentence for each evaluation set. Empty if the folder has no note, or is remote.

    Raises:
        DataError: If the note cannot be read.
    """
    file = Path(root).expanduser() / CONTAMINATION
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
        return [
            f"cleared of {name}: {counts['dropped']:,} images within {note['threshold']:g} (inner product of"
            f" {note['encoder']}) of its {counts['images']:,} were dropped"
            for name, counts in note["sets"].items()
        ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} cannot be read ({error!r}). Copy it again from the folder in which the shards were made."
        ) from error


def write_note(
    folder: Path,
    encoder: Mapping[str, Any],
    threshold: float,
    sets: Mapping[str, Mapping[str, int]],
    whiten: int | None = None,
) -> None:
    """Write the note (`contamination.json`).

    Args:
        folder: The folder to write it into.
        encoder: The entry `encoder` of the metadata of a descriptor set: name, weights and preprocessing.
        threshold: The inner product above which an image was dropped.
        sets: For each evaluation set, its number of `images` and how many training images were `dropped`.
        whiten: The number of axes, if descriptors were whitened.
    """
    name = f"{encoder['name']}, {encoder['weights']}, at {encoder['preprocessing']['size']} px"
    name += f", whitened to {whiten} axes" if whiten else ""
    write_json(folder / CONTAMINATION, {"encoder": name, "threshold": threshold, "sets": sets})


def digest_of_set(locations: Sequence[str]) -> str:
    """Return a digest of an evaluation set without opening an image.

    It covers the digests of its shards, and the names and sizes of its files.

    Raises:
        DataError: If a location is missing or empty.
    """
    from stylesim.data.open_samples import open_samples
    from stylesim.data.roots import name_roots
    from stylesim.data.shards.shard_samples import ShardSamples

    listing: list[Any] = []
    for part in open_samples(name_roots(locations)).parts:
        if isinstance(part, ShardSamples):
            listing += [(shard.name, shard.sha256) for index in part.indices for shard in index.shards]
        else:
            files = [(sample.id, Path(str(sample.image))) for sample in part]
            listing += [(name, file.stat().st_size if file.is_file() else -1) for name, file in files]
    return sha256_of_text(json.dumps(listing))
