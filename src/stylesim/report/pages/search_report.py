"""Write the result of a search in a style database: a table, JSON, and a page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from stylesim.core.files import atomic_path, write_json
from stylesim.core.images import ImageLike
from stylesim.evaluation.statistics import bootstrap_interval
from stylesim.report.html_page import Section, format_number, render, write_page
from stylesim.report.plots.neighbour_gallery import NeighbourRow, ShownImage, load_thumbnail
from stylesim.report.plots.score_scale import Distribution, score_scale
from stylesim.report.provenance_sections import provenance_sections
from stylesim.retrieval.database.database_neighbours import DatabaseNeighbours
from stylesim.retrieval.database.style_database import StyleDatabase
from stylesim.retrieval.descriptor_set import DescriptorSet

FindImages = Callable[[Collection[str]], Mapping[str, ImageLike]]
"""Returns the queries with the given ids, as far as they can be found."""
SHOWN_QUERIES, SHOWN_NEIGHBOURS = 48, 10
SAMPLE = 600
"""Number of works of the database whose similarities to each other give the scale."""


def write_search_tables(run_dir: Path, found: DatabaseNeighbours, query_ids: list[str]) -> None:
    """Write `neighbours.csv`, one row per neighbour, and `neighbours.json`, one entry per query."""
    table = found.table(query_ids)
    with atomic_path(run_dir / "neighbours.csv") as partial:
        table.assign(tags=table["tags"].map("|".join)).to_csv(partial, index=False, errors="backslashreplace")
    neighbours: dict[str, list[dict[str, Any]]] = {query: [] for query in query_ids}
    for row in table.to_dict("records"):
        known = {str(name): value for name, value in row.items() if value is not None and value == value}
        neighbours[known.pop("query")].append(known)
    entries = [{"query": query, "neighbours": rows} for query, rows in neighbours.items()]
    write_json(run_dir / "neighbours.json", {"exact": found.exact, "queries": entries})


def write_search_report(
    run_dir: Path,
    database: StyleDatabase,
    found: DatabaseNeighbours,
    queries: DescriptorSet,
    find: FindImages,
    where: str | None,
    *,
    is_cosine: bool = True,
) -> Path:
    """Write `search.html` into the run folder.

    Args:
        run_dir: Folder of the run.
        database: What was searched.
        found: The neighbours.
        queries: The queries, in the order of `found`.
        find: How to find the images of the queries.
        where: The filter, if there was one.
        is_cosine: Whether the similarities are cosines, so that they can be compared with those of pairs of works.
    """
    table = found.table(queries.ids)
    sections = []
    nearest = table.loc[table["rank"] == 1, "similarity"].to_numpy(dtype=np.float64)
    if is_cosine and len(nearest):
        different, same = pair_similarities(database)
        sections.append(Section("Scale", _scale(nearest, different, same, min(SAMPLE, len(database)))))
    sections.append(Section("Queries and their nearest works", _gallery(database, table, queries, find)))
    sections.append(Section("Search", render("facts.html", facts=_facts(database, found, where))))
    sections += provenance_sections(run_dir, queries.meta.get("encoder", database.encoder), queries.damaged)
    summary = summarise_search(database, found, where, nearest if is_cosine else nearest[:0])
    return write_page(run_dir / "search.html", "Nearest works", sections, summary=summary)


def summarise_search(
    database: StyleDatabase, found: DatabaseNeighbours, where: str | None, nearest: Float[np.ndarray, " q"]
) -> str:
    """Return the result in a few sentences of plain text."""
    queries = len(found.indices)
    admitted = database.count(where)
    works = (
        f"the {admitted:,} works that the filter admits" if where else f"the {admitted:,} works of {database.location}"
    )
    images = "image was" if queries == 1 else "images were"
    text = f"{queries:,} {images} compared in style with {works} by {database.encoder['name'] or 'an unknown encoder'}."
    if len(nearest) > 1:
        low, high = bootstrap_interval(nearest)
        text += (
            f" The nearest work has a mean similarity of {format_number(nearest.mean())}"
            f" (95 % interval {format_number(low)} to {format_number(high)})."
        )
    if len(nearest) == 1:
        text += f" The nearest work has a similarity of {format_number(nearest[0])}."
    if not found.exact and (index := database.index):
        text += f" An index proposed the works; it finds {index['recall@10']:.1%} of the true 10 nearest."
    return text


def pair_similarities(database: StyleDatabase) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Return the similarities of pairs of works without and with a common tag, in a sample of the database."""
    sample = database.sample(SAMPLE)
    similarities = sample.descriptors @ sample.descriptors.T
    sets = [frozenset(tags) for tags in sample.items["tags"]]
    rows, columns = np.triu_indices(len(sample), k=1)
    shares = np.array([bool(sets[i] & sets[j]) for i, j in zip(rows, columns, strict=True)], dtype=bool)
    pairs = similarities[rows, columns]
    return pairs[~shares], pairs[shares]


def describe_scale(database: StyleDatabase) -> str:
    """Return which similarities works of the database have to each other, in a sentence."""
    sentence = f"similarities by {database.encoder['name'] or 'an unknown encoder'}"
    different, same = pair_similarities(database)
    kinds = {"works with a tag in common": same, "works without": different}
    medians = [f"{np.median(pairs):.3f} for {name}" for name, pairs in kinds.items() if len(pairs)]
    return f"{sentence}; median of this database: {', '.join(medians)}" if medians else sentence


def _scale(nearest: np.ndarray, different: np.ndarray, same: np.ndarray, works: int) -> Any:
    distributions = [
        Distribution("No tag in common", different, "--soft"),
        Distribution("A tag in common", same, "--correct"),
        Distribution("Nearest works", nearest, "--accent"),
    ]
    interval = bootstrap_interval(nearest) if len(nearest) > 1 else None
    scale = score_scale(distributions, float(nearest.mean()), interval)
    return render("search_scale.html", scale=scale, sample=works)


def _gallery(database: StyleDatabase, table: pd.DataFrame, queries: DescriptorSet, find: FindImages) -> Any:
    chosen = np.linspace(0, len(queries) - 1, min(SHOWN_QUERIES, len(queries))).round().astype(int)
    shown = [queries.ids[row] for row in chosen]
    tags = dict(zip(queries.ids, queries.items["tags"], strict=True))
    rows = table.loc[table["query"].isin(shown) & (table["rank"] <= SHOWN_NEIGHBOURS)].to_dict("records")
    ids = list(dict.fromkeys(row["id"] for row in rows))
    stored = database.items(ids, ["thumbnail"])
    thumbnails = {
        id: load_thumbnail(data) for id, data in zip(stored["id"], stored["thumbnail"], strict=True) if data is not None
    }
    found = {query: list(group) for query, group in groupby(rows, key=lambda row: row["query"])}
    images = find(set(shown))
    gallery = [
        NeighbourRow(
            ShownImage(query, _label(query, tags[query]), load_thumbnail(images.get(query))),
            [
                ShownImage(row["id"], _label(row["id"], row["tags"]), thumbnails.get(row["id"]), row["similarity"])
                for row in found.get(query, [])
            ],
        )
        for query in shown
    ]
    neighbours = render("neighbours.html", rows=gallery)
    return render("search_gallery.html", neighbours=neighbours, count=len(queries), shown=len(shown))


def _label(id: str, tags: list[str]) -> str:
    """Return tags without their groups (`artist:monet` becomes `monet`), or the name of the file."""
    names = dict.fromkeys(tag.rpartition(":")[2] for tag in tags)
    return ", ".join(list(names)[:3]) or Path(id).stem


def _facts(database: StyleDatabase, found: DatabaseNeighbours, where: str | None) -> dict[str, str]:
    index = database.index
    method = "every work was compared"
    if not found.exact and index:
        method = f"index ({index['kind']}), recall@10 {index['recall@10']:.3f} on {index['queries']} works"
    facts = {"database": database.location, "works": f"{len(database):,}", "filter": where or "none"}
    return facts | {"admitted": f"{database.count(where):,}", "search": method}
