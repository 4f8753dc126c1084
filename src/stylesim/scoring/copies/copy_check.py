"""Find for each image the work that it most likely copies, as a whole or in part.

Style and copying are two questions: a copy has the style of what it copies, and an image in the same style need copy
nothing. So the copy check has an encoder and a verdict of its own. Neither verdict is a legal finding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from stylesim.core.errors import ConfigError, CorruptSampleError
from stylesim.core.images import ImageLike, open_image
from stylesim.core.progress import progress
from stylesim.encoders.style_encoder import StyleEncoder
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.exact_search import search
from stylesim.scoring.copies.image_tiles import WHOLE, Tile, cut_tiles

FindImages = Callable[[Collection[str]], Mapping[str, ImageLike]]
"""Returns the images with the given ids, as far as they can be found."""
Flag = Literal["near-duplicate", "candidate", "none"]

CANDIDATES = 5
"""Number of works whose tiles are compared with the whole image, which may be a crop of one of them."""
TILED_WORKS = 32
"""Number of works whose tiles are compared with the other works, which gives the scale for a tile's similarity."""
IMAGES_AT_ONCE = 128
"""Number of images that are looked up together, because finding them may mean reading shards."""


class _Parts(NamedTuple):
    """An image and its tiles."""

    tiles: list[Tile]
    """The whole image first."""
    vectors: Float[np.ndarray, "t d"]


class _Match(NamedTuple):
    """The best match of the parts of one side with the whole images of the other."""

    work: int
    similarity: float
    tile: Tile
    tile_of: Literal["image", "work"]


@dataclass(frozen=True)
class CopyCheck:
    """The most similar work of each image, by an encoder that was trained to find copies."""

    table: pd.DataFrame
    """A row per image: `query`; the work most similar as a whole, `match`, with `similarity` and `percentile`; the best
    match of a part, `tile_match`, `tile_similarity`, `tile_percentile`, `tile` (which part), `tile_of` (whether it is a
    part of the "image" or of the "work") and `left, top, right, bottom` (its edges as fractions); the `copied` work,
    that of the larger of the two similarities, which is the `copy_similarity`; and the `flag`: "near-duplicate",
    "candidate" or "none". A percentile is the share of the gallery's works that are less similar to their own most
    similar other work than the image is to its match; a low one says that works of this gallery are as similar to each
    other anyway."""
    encoder: str
    thresholds: tuple[float, float]
    """Similarity from which a match is a candidate, and a near-duplicate."""
    gallery_pairs: Float[np.ndarray, " n"]
    """For each work, its similarity to the most similar other work."""
    tile_pairs: Float[np.ndarray, " m"]
    """For TILED_WORKS works, the largest similarity of one of their tiles to another work."""
    unread: list[str]
    """Images that could not be found or read."""

    @property
    def summary(self) -> str:
        """The result in a sentence."""
        count = self.table["flag"].value_counts()
        text = (
            f"copies, by {self.encoder}: {count.get('near-duplicate', 0):,} near-duplicates (from"
            f" {self.thresholds[1]:g}), {count.get('candidate', 0):,} candidates (from {self.thresholds[0]:g}),"
            f" {count.get('none', 0):,} without a match"
        )
        return text + (f"; {len(self.unread):,} images could not be read" if self.unread else "")

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of the table by image."""
        return {row["query"]: row for row in self.table.to_dict("records")}


def check_copies(
    encoder: StyleEncoder,
    images: Sequence[str],
    find_queries: FindImages,
    gallery: DescriptorSet,
    find_works: FindImages,
    *,
    candidate: float = 0.5,
    near_duplicate: float = 0.75,
    seed: int = 0,
) -> CopyCheck:
    """Compare each image, and its parts, with all works, and the whole image with parts of the most similar works.

    Args:
        encoder: A copy encoder, such as SSCD.
        images: The ids of the images.
        find_queries: Finds the images.
        gallery: The works, embedded by the same encoder. A work with the id of an image is not compared with it.
        find_works: Finds the works.
        candidate: Similarity from which a match may be a copy. 0.5 is the value for SSCD in Somepalli et al. 2023.
        near_duplicate: Similarity from which a match is a copy with high precision. 0.75 is the value of SSCD's authors
            (Pizzi et al. 2022).
        seed: Seed of the choice of works whose tiles are compared with other works.

    Raises:
        ConfigError: If the thresholds are not in order.
    """
    if not -1 < candidate <= near_duplicate <= 1:
        raise ConfigError(
            f"The thresholds of a copy must satisfy -1 < candidate <= near_duplicate <= 1, got {candidate} and"
            f" {near_duplicate}."
        )
    works = np.asarray(gallery.descriptors, dtype=np.float32)
    works = works / np.linalg.norm(works, axis=1, keepdims=True)
    pairs = _nearest_other(works, gallery.ids)
    tile_pairs = _nearest_of_tiles(encoder, works, gallery.ids, find_works, seed)
    rows, unread = [], []
    tiles_of_works: dict[int, _Parts | None] = {}
    with progress("checking for copies", len(images)) as advance:
        for start in range(0, len(images), IMAGES_AT_ONCE):
            ids = images[start : start + IMAGES_AT_ONCE]
            parts = _encode_parts(encoder, ids, find_queries)
            unread += [id for id in ids if id not in parts]
            similarities = {id: _without(id, of_image.vectors @ works.T, gallery) for id, of_image in parts.items()}
            likely = {id: _candidates(values) for id, values in similarities.items()}
            wanted = sorted({work for of_image in likely.values() for work in of_image} - tiles_of_works.keys())
            encoded = _encode_parts(encoder, [gallery.ids[work] for work in wanted], find_works)
            tiles_of_works |= {work: encoded.get(gallery.ids[work]) for work in wanted}
            for id, of_image in parts.items():
                tiled = {work: tiles_of_works[work] for work in likely[id]}
                rows.append({"query": id} | _best_matches(of_image, similarities[id], tiled, gallery.ids))
            advance(len(ids))
    table = pd.DataFrame(rows, columns=["query", *_MATCH_COLUMNS])
    table["percentile"] = percentiles(np.asarray(table["similarity"], dtype=np.float64), pairs)
    table["tile_percentile"] = percentiles(np.asarray(table["tile_similarity"], dtype=np.float64), tile_pairs)
    by_tile = (table["tile_similarity"] > table["similarity"]).to_numpy(dtype=bool)
    table["copied"] = np.where(by_tile, table["tile_match"], table["match"])
    table["copy_similarity"] = table[["similarity", "tile_similarity"]].max(axis=1)
    table["flag"] = [_flag(value, candidate, near_duplicate) for value in table["copy_similarity"]]
    return CopyCheck(table, encoder.provenance.name, (candidate, near_duplicate), pairs, tile_pairs, unread)


_MATCH_COLUMNS = (
    *("match", "similarity", "tile_match", "tile_similarity", "tile", "tile_of"),
    *("left", "top", "right", "bottom"),
)


def percentiles(values: Float[np.ndarray, " m"], reference: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """Return the share of the reference values that lie below each value; NaN where one of them is unknown."""
    if not len(reference):
        return np.full(len(values), np.nan)
    share = np.searchsorted(np.sort(reference), values, side="left") / len(reference)
    return np.where(np.isnan(values), np.nan, share)


def _flag(similarity: float, candidate: float, near_duplicate: float) -> Flag:
    if similarity >= near_duplicate:
        return "near-duplicate"
    return "candidate" if similarity >= candidate else "none"


def _nearest_other(works: Float[np.ndarray, "n d"], ids: list[str]) -> Float[np.ndarray, " n"]:
    if len(works) < 2:
        return np.empty(0)
    return search(works, works, 1, query_ids=ids, gallery_ids=ids).similarities[:, 0].double().numpy()


def _nearest_of_tiles(
    encoder: StyleEncoder, works: Float[np.ndarray, "n d"], ids: list[str], find: FindImages, seed: int
) -> Float[np.ndarray, " m"]:
    """Return for some works the largest similarity of one of their tiles to another work."""
    if len(works) < 2:
        return np.empty(0)
    chosen = {ids[row]: row for row in np.random.default_rng(seed).permutation(len(works))[:TILED_WORKS]}
    values = []
    for id, parts in _encode_parts(encoder, list(chosen), find).items():
        if len(parts.tiles) > 1:
            similarities = parts.vectors[1:] @ works.T
            similarities[:, chosen[id]] = -np.inf
            values.append(similarities.max())
    return np.array(values, dtype=np.float64)


def _encode_parts(encoder: StyleEncoder, ids: Sequence[str], find: FindImages) -> dict[str, _Parts]:
    """Return the parts of each image, the whole one first, with their descriptors; unreadable images are left out."""
    found, tiles = find(set(ids)) if ids else {}, dict[str, list[Tile]]()

    def cuts() -> Iterator[Image.Image]:
        for id in ids:
            try:
                image = open_image(found[id])
            except (KeyError, CorruptSampleError):
                continue
            parts = [(WHOLE, image), *cut_tiles(image)]
            tiles[id] = [tile for tile, _ in parts]
            yield from (cut for _, cut in parts)

    vectors = encoder.encode(cuts()).numpy()
    ends = np.cumsum([len(of_image) for of_image in tiles.values()])
    return {
        id: _Parts(of_image, vectors[end - len(of_image) : end])
        for (id, of_image), end in zip(tiles.items(), ends, strict=True)
    }


def _without(id: str, similarities: Float[np.ndarray, "t n"], gallery: DescriptorSet) -> Float[np.ndarray, "t n"]:
    """Leave out the work that is the image itself."""
    similarities[:, (gallery.items["id"] == id).to_numpy()] = -np.inf
    return similarities


def _candidates(similarities: Float[np.ndarray, "t n"]) -> list[int]:
    """Return the works that some part of the image resembles most."""
    best = similarities.max(axis=0)
    order = np.argsort(-best, kind="stable")[:CANDIDATES]
    return order[np.isfinite(best[order])].tolist()


def _best_matches(
    image: _Parts, similarities: Float[np.ndarray, "t n"], tiled: Mapping[int, _Parts | None], ids: list[str]
) -> dict[str, object]:
    """Return the best match of the whole image, and the best one of a part on either side."""
    if not tiled:
        return {}
    whole, matches = int(similarities[0].argmax()), []
    if len(image.tiles) > 1:
        part, work = np.unravel_index(similarities[1:].argmax(), similarities[1:].shape)
        matches.append(_Match(int(work), float(similarities[1 + part, work]), image.tiles[1 + part], "image"))
    for work, parts in tiled.items():
        if parts is not None and len(parts.tiles) > 1:
            to_tiles = parts.vectors[1:] @ image.vectors[0]
            tile = int(to_tiles.argmax())
            matches.append(_Match(work, float(to_tiles[tile]), parts.tiles[1 + tile], "work"))
    row: dict[str, object] = {"match": ids[whole], "similarity": float(similarities[0, whole])}
    if matches:
        best = max(matches, key=lambda match: match.similarity)
        row |= {"tile_match": ids[best.work], "tile_similarity": best.similarity, "tile_of": best.tile_of}
        row |= {"tile": best.tile.name, **dict(zip(("left", "top", "right", "bottom"), best.tile[1:], strict=True))}
    return row
