"""Find the candidates of a ranking: image sources given by globs, lists, tables of folders, or names."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from glob import glob, has_magic
from os.path import expanduser
from pathlib import Path

from stylesim.core.errors import ConfigError
from stylesim.core.file_names import path_parts
from stylesim.data.datasets.folder import lacks_images
from stylesim.data.image_tables import is_table, read_image_table
from stylesim.data.roots import Root

log = logging.getLogger(__name__)


def find_candidates(sources: str | Sequence[str] | Mapping[str, str]) -> tuple[dict[str, Root], list[str]]:
    """Find the candidates and name each by the parts of its path that tell it from the others.

    Args:
        sources: One source or several, or sources by name. A glob (`runs/*/samples`) stands for the folders that it
            matches; a table with the columns `path` and, if you like, `name` stands for the folders in its rows,
            relative to the table. Anything else is one candidate: a folder, a table of images, shards or descriptors.

    Returns:
        The candidates by name, and the folders that a glob matches although there is no image in them. They are left
        out and named in a warning. Of `runs/a/samples` and `runs/b/samples`, the names are `a` and `b`.

    Raises:
        ConfigError: If there is no candidate, a glob matches no folder, or two candidates have the same name or place.
    """
    if isinstance(sources, Mapping):
        found = [(str(location), str(name)) for name, location in sources.items()]
        empty: list[str] = []
    else:
        given = [sources] if isinstance(sources, str) else [str(source) for source in sources]
        found = [pair for source in given for pair in _expand(expanduser(source))]
        empty = [
            place
            for place, _ in found
            if any(map(has_magic, given)) and Path(place).is_dir() and lacks_images(Path(place))
        ]
        found = [pair for pair in found if pair[0] not in empty]
    if not found:
        raise ConfigError(
            f"candidates must name at least one folder of images, got {sources}"
            f"{', whose folders hold no image' if empty else ''}."
        )
    for place in empty:
        log.warning("%s is left out, because there is no image in it.", place)
    places = [str(Path(place).absolute()) if "://" not in place else place for place, _ in found]
    if twice := sorted({place for place in places if places.count(place) > 1}):
        raise ConfigError(f"Each candidate must be given once, got {twice[0]} more than once.")
    shown = _short_names(places)
    names = [name or short for (_, name), short in zip(found, shown, strict=True)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"Each candidate needs a name of its own, got {twice[0]!r} more than once.")
    return {name: Root(place, name) for name, (place, _) in zip(names, found, strict=True)}, empty


def _expand(source: str) -> Iterator[tuple[str, str]]:
    """Yield (location, name) of each candidate; the name is empty if the source does not give one."""
    path = Path(source)
    if has_magic(source) and not path.exists():
        folders = [place for place in sorted(glob(source)) if Path(place).is_dir()]
        if not folders:
            raise ConfigError(f"candidates={source} matches no folder. Quote the glob, and check its path.")
        yield from ((folder, "") for folder in folders)
    elif path.is_file() and is_table(path):
        frame = read_image_table(path)
        places = [str(path.parent / expanduser(place)) for place in frame["path"]]
        if places and Path(places[0]).is_dir():
            names = frame["name"].tolist() if "name" in frame else [""] * len(places)
            yield from zip(places, map(str, names), strict=True)
        else:
            yield source, ""
    else:
        yield source, ""


def _short_names(places: Sequence[str]) -> list[str]:
    """Return the parts of each path without those that all paths begin or end with."""
    parts = [path_parts(place.replace("://", "/")) for place in places]
    if len(parts) == 1:
        return [parts[0][-1]]
    shortest = min(map(len, parts))
    first = next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), shortest - 1)
    last = next((i for i in range(1, shortest - first + 1) if len({part[-i] for part in parts}) > 1), 1)
    return ["/".join(part[first : len(part) - last + 1]) for part in parts]
