"""Look up what is known about works beside their labels: title, author, licence and address."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stylesim.core.errors import StylesimError
from stylesim.data.datasets.folder import find_samples
from stylesim.data.image_tables import TABLES, is_missing, read_image_table
from stylesim.data.roots import Root

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
            of_table = root.folder.is_file() and root.folder.suffix in TABLES
            facts |= _from_table(root, wanted) if of_table else _from_shards(root, wanted)
    return {id: known for id, known in facts.items() if known}


def known_facts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts among the columns of a row, or the keys of a JSON object."""
    facts = {}
    for fact, names in FACTS.items():
        found = [values[name] for name in names if isinstance(values.get(name), str) and not is_missing(values[name])]
        facts |= {fact: found[0]} if found else {}
    return facts


def _from_table(root: Root, wanted: Collection[str]) -> dict[str, dict[str, str]]:
    assert root.folder is not None
    frame = read_image_table(root.folder)
    rows = {str(root.folder.parent / row["path"]): known_facts(row) for row in frame.to_dict("records")}
    samples = find_samples(root.folder, root.name)
    return {sample.id: rows.get(str(sample.image), {}) for sample in samples if sample.id in wanted}


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
            with suppress(tarfile.TarError, OSError, EOFError, ValueError), tarfile.open(file) as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    key = name.removesuffix(".json")
                    if name != key and key in of_shard and (stream := tar.extractfile(member)) is not None:
                        facts[f"{root.name}/{shard}/{key}"] = known_facts(json.loads(stream.read()))
                    if len(facts) == len(wanted):
                        return facts
    return facts
