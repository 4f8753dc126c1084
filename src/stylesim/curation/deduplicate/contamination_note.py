"""Which evaluation sets a training set has been cleared of: a note that travels with its shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_json

CONTAMINATION = "contamination.json"


def checked_against(root: str | Path) -> list[str]:
    """What a root of training data says it was cleared of, a sentence for each evaluation set.

    Empty where it says nothing: no note lies in the folder, or the root is remote. Raises StylesimError for a note
    that cannot be read.
    """
    file = Path(root).expanduser() / CONTAMINATION
    try:
        note = json.loads(file.read_text())
        return [
            f"cleared of {name}: {one['dropped']:,} images within {note['threshold']:g} (inner product of"
            f" {note['encoder']}) of its {one['images']:,} were dropped"
            for name, one in note["sets"].items()
        ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StylesimError(
            f"{file} cannot be read ({error!r}): copy it anew from where the shards were made."
        ) from error


def write_note(
    folder: Path,
    encoder: Mapping[str, Any],
    threshold: float,
    sets: Mapping[str, Mapping[str, int]],
    whiten: int | None = None,
) -> None:
    """Note the encoder (its provenance, its axes if whitened), and the images and the dropped ones of each set."""
    name = f"{encoder['name']}, {encoder['weights']}, at {encoder['preprocessing']['size']} px"
    name += f", whitened to {whiten} axes" if whiten else ""
    write_json(folder / CONTAMINATION, {"encoder": name, "threshold": threshold, "sets": sets})


def digest_of_set(locations: Sequence[str]) -> str:
    """Of what an evaluation set is made of, without opening an image: its shards' digests, its files' names and sizes.

    Raises StylesimError where a location is missing or empty.
    """
    from stylesim.data.open_samples import open_samples
    from stylesim.data.roots import name_roots
    from stylesim.data.shards.shard_samples import ShardSamples

    listing: list[Any] = []
    for part in open_samples(name_roots(locations)).parts:
        if isinstance(part, ShardSamples):
            listing += [(shard.name, shard.sha256) for index in part.indices for shard in index.shards]
        else:
            files = [(item.id, Path(str(item.image))) for item in part]
            listing += [(name, file.stat().st_size if file.is_file() else -1) for name, file in files]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
