"""Show queries beside their nearest neighbours: choose them, load their images, draw a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import ImageLike, open_image
from stylesim.core.images.recolour import change_colours
from stylesim.evaluation.evaluate_descriptors import RetrievalResult
from stylesim.evaluation.labels import label_values
from stylesim.evaluation.retrieval_spec import RetrievalSpec

THUMBNAIL = 144
CORRECT, WRONG, MISSING = (29, 138, 78), (200, 55, 45), (225, 225, 225)


@dataclass(frozen=True)
class ShownImage:
    """One image of a gallery.

    Attributes:
        id: Shown when the pointer rests on the image.
        label: Shown below it.
        thumbnail: A square image, or None if the image cannot be read.
        similarity: Similarity to the query; None for a query.
        correct: Whether the image has the query's label; None if that is unknown.
    """

    id: str
    label: str
    thumbnail: Image.Image | None
    similarity: float | None = None
    correct: bool | None = None


@dataclass(frozen=True)
class NeighbourRow:
    """A query and its neighbours, the nearest first."""

    query: ShownImage
    neighbours: list[ShownImage]


def choose_queries(retrieval: RetrievalResult, count: int, *, seed: int = 0, only_failures: bool = False) -> list[int]:
    """Choose queries from all labels in turn. A third of them have a wrong nearest neighbour, if there are so many.

    Args:
        retrieval: The evaluated retrieval set.
        count: Number of queries, if there are so many.
        seed: The choice depends only on the ids, the labels and this seed.
        only_failures: Choose only queries with a wrong nearest neighbour.

    Returns:
        Indices of queries, ordered by label.
    """
    labels, ids = _labels(retrieval, "queries"), retrieval.queries.ids
    shuffled = np.random.default_rng(seed).permutation(sorted(range(len(ids)), key=lambda query: ids[query])).tolist()

    def in_turn(correct: bool) -> list[int]:
        by_label: dict[str, list[int]] = {}
        for query in shuffled:
            if bool(retrieval.relevance[query, 0]) == correct:
                by_label.setdefault(labels[query], []).append(query)
        return [query for query in chain.from_iterable(zip_longest(*by_label.values())) if query is not None]

    wrong, correct = in_turn(False), [] if only_failures else in_turn(True)
    failures = max(min(len(wrong), count // 3), count - len(correct))
    return sorted((wrong[:failures] + correct)[:count], key=lambda query: (labels[query], ids[query]))


def shown_ids(retrieval: RetrievalResult, queries: Sequence[int], k: int = 10) -> set[str]:
    """Return the ids of some queries and of their k nearest neighbours."""
    query_ids, gallery_ids = retrieval.queries.ids, retrieval.gallery.ids
    indices = retrieval.neighbours.indices[list(queries), :k].flatten().tolist()
    return {query_ids[query] for query in queries} | {gallery_ids[index] for index in indices if index >= 0}


def neighbour_rows(
    retrieval: RetrievalResult, queries: Sequence[int], thumbnails: Mapping[str, Image.Image | None], k: int = 10
) -> list[NeighbourRow]:
    """Return some queries with their k nearest neighbours.

    Args:
        retrieval: The evaluated retrieval set.
        queries: Indices of queries.
        thumbnails: Images by id. A missing image is shown as an empty square.
        k: The largest number of neighbours.
    """
    query_labels, gallery_labels = _labels(retrieval, "queries"), _labels(retrieval, "gallery")
    query_ids, gallery_ids = retrieval.queries.ids, retrieval.gallery.ids
    rows = []
    for query in queries:
        indices, similarities = (values[query, :k].tolist() for values in retrieval.neighbours)
        neighbours = []
        for index, similarity, relevant in zip(indices, similarities, retrieval.relevance[query, :k], strict=True):
            if index >= 0:
                id = gallery_ids[index]
                shown = ShownImage(id, gallery_labels[index], thumbnails.get(id), similarity, bool(relevant))
                neighbours.append(shown)
        id = query_ids[query]
        rows.append(NeighbourRow(ShownImage(id, query_labels[query], thumbnails.get(id)), neighbours))
    return rows


def load_thumbnail(source: ImageLike | None, spec: RetrievalSpec | None = None, id: str = "") -> Image.Image | None:
    """Open an image and crop it to a square of THUMBNAIL px. Return None if there is no image or it cannot be read.

    Args:
        source: The image.
        spec: The retrieval set in whose colours the image is shown. None leaves the colours.
        id: The id of the image, which decides how it is recoloured.
    """
    try:
        image = None if source is None else open_image(source, short_side=THUMBNAIL, accept_damaged=True)
    except CorruptSampleError:
        return None
    if image and spec:
        image = change_colours(image, id, greyscale=spec.greyscale, recoloured=spec.recoloured)
    return image and ImageOps.fit(image, (THUMBNAIL, THUMBNAIL))


def draw_contact_sheet(rows: Sequence[NeighbourRow], *, cell: int = 112) -> Image.Image:
    """Draw rows as one image: queries at the left, correct neighbours in a green frame and wrong ones in a red frame.

    Args:
        rows: The queries and their neighbours.
        cell: Side of an image in px.
    """
    gap, caption = 10, 30
    columns = 1 + max((len(row.neighbours) for row in rows), default=0)
    size = (columns * (cell + gap) + 3 * gap, len(rows) * (cell + caption + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for r, row in enumerate(rows):
        for c, image in enumerate((row.query, *row.neighbours)):
            x, y = gap + c * (cell + gap) + (gap if c else 0), gap + r * (cell + caption + gap)
            if image.correct is not None:
                draw.rectangle((x - 3, y - 3, x + cell + 2, y + cell + 2), CORRECT if image.correct else WRONG)
            if image.thumbnail:
                sheet.paste(image.thumbnail.resize((cell, cell)), (x, y))
            else:
                draw.rectangle((x, y, x + cell - 1, y + cell - 1), MISSING)
            draw.text((x, y + cell + 4), _shorten(image.label, draw, font, cell), "black", font)
            if image.similarity is not None:
                draw.text((x, y + cell + 16), f"{image.similarity:.3f}", (100, 100, 106), font)
    return sheet


def _shorten(text: str, draw: ImageDraw.ImageDraw, font: Any, width: int) -> str:
    while text and draw.textlength(text, font) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text


def _labels(retrieval: RetrievalResult, side: str) -> list[str]:
    """Return the labels of each query or gallery image as text, without their groups: `noto` for `set:noto`."""
    items = getattr(retrieval, side).items
    labels = []
    for values in label_values(items, retrieval.spec.relevant):
        text = ", ".join(value.rpartition(":")[2] for value in values[:3])
        labels.append(f"{text}, …" if len(values) > 3 else text)
    return labels
