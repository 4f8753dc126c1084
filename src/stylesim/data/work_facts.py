"""Look up what is known about works beside their labels: title, author, licence and address."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stylesim.core.errors import StylesimError
from stylesim.data.image_tables import image_keys, is_table, read_image_table
from stylesim.data.labels import is_no_label
from stylesim.data.roots import Root
from stylesim.data.shards.tar_reader import SafeHeader

FACTS = {
    "title": ("title",),
    "author": ("author", "artist", "creator"),
    "licence": ("licence", "license", "rights"),
    "url": ("url", "link", "source_url"),
}
"""Names of columns of a table, or of keys in the JSON of a sample, by the fact that they give."""


def find_work_facts(roots: Sequence[Root], ids: Collection[str]) -> dict[str, dict[str, str]]:
    """Return the facts that the tables and shards of local roots give about works.

    Args:
        roots: Where the works are.
        ids: The works.

    Returns:
        Facts by id; a work about which nothing is known is missing.
    """
    facts: dict[str, dict[str, str]] = {}
    for root in roots:
        wanted = {id for id in ids if id.startswith(f"{root.name}/")}
        if not wanted or root.folder is None:
            continue
        with suppress(StylesimError):  # it has been moved, or is no table: nothing is known
            of_table = root.folder.is_file() and is_table(root.folder)
            facts |= _from_table(root, wanted) if of_table else _from_shards(root, wanted)
    return {id: known for id, known in facts.items() if known}


def known_facts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts among the columns of a row, or the keys of a JSON object."""
    facts = {}
    for fact, names in FACTS.items():
        found = [values[name] for name in names if isinstance(values.get(name), str) and not is_no_label(values[name])]
        facts |= {fact: found[0]} if found else {}
    return facts


def _from_table(root: Root, wanted: Collection[str]) -> dict[str, dict[str, str]]:
    assert root.folder is not None
    frame = read_image_table(root.folder)
    ids = [f"{root.name}/{key}" for key in image_keys(frame)]
    rows = zip(ids, frame.to_dict("records"), strict=True)
    return {id: known_facts(row) for id, row in rows if id in wanted}


def _from_shards(root: Root, wanted: Collection[str]) -> dict[str, dict[str, str]]:
    """Read the JSON of these samples; the shards are read up to the last of them."""
    assert root.folder is not None
    keys: dict[str, set[str]] = {}
    for id in wanted:
        shard, _, key = id.removeprefix(f"{root.name}/").partition("/")
        keys.setdefault(shard, set()).add(key)
    facts: dict[str, dict[str, str]] = {}
    for shard, of_shard in keys.items():
        for file in sorted(Path(root.folder).glob(f"{shard}.tar*")):
            with suppress(Exception), tarfile.open(file, tarinfo=SafeHeader) as tar:  # damaged in some way
                for member in tar:
                    name = member.name.removeprefix("./")
                    key = name.removesuffix(".json")
                    if name != key and key in of_shard and (stream := tar.extractfile(member)) is not None:
                        facts[f"{root.name}/{shard}/{key}"] = known_facts(json.loads(stream.read()))
                    if len(facts) == len(wanted):
                        return facts
    return facts
