"""The works that the page shows: searched, filtered by their metadata, and attributed to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from stylesim.core.errors import ConfigError, DataError
from stylesim.data.sample import Sample
from stylesim.encoders.style_encoder import StyleEncoder
from stylesim.evaluation.embed import embed
from stylesim.evaluation.statistics import bootstrap_interval
from stylesim.report.pages.search_report import pair_similarities
from stylesim.retrieval.database.export_items import METADATA
from stylesim.retrieval.database.style_database import StyleDatabase
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.scoring.attribution.attributor import Attributor, fit_attributor
from stylesim.scoring.gss import mean_scores

FILTER_VALUES = 60
"""A column with more distinct values than this gets no control."""


@dataclass(frozen=True)
class Scale:
    """What similarities mean among these works: medians of pairs of works without and with a common tag."""

    different: float | None
    same: float | None


class Works:
    """A style database with its encoder, and with what is computed once for all requests.

    Args:
        database: The works.
        encoder: The encoder of the database.
        label: Which tags are labels, for attribution.
        batch_size: Images per forward pass.
        device: As for `embed`.
    """

    def __init__(
        self,
        database: StyleDatabase,
        encoder: StyleEncoder,
        label: str = "*",
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        self.database, self.encoder, self.batch_size, self.device = database, encoder, batch_size, device
        with TemporaryDirectory() as folder:
            exported = database.export(Path(folder) / "works")
            items, metadata = exported.items, pd.read_parquet(Path(folder) / "works" / METADATA)
            gallery = DescriptorSet(np.array(exported.descriptors), items, exported.meta)
        self.meta = gallery.meta
        self.filters = _filters(items, metadata, database.columns)
        self.numbers = {id: row for row, id in enumerate(gallery.ids)}
        self._ids = gallery.ids
        self.attributor: Attributor | str
        try:
            self.attributor = fit_attributor(gallery, label=label)
        except DataError as error:
            self.attributor = f"Attribution is not available: {error}"
        self.scale = Scale(*(float(np.median(p)) if len(p) else None for p in pair_similarities(database)))

    def embed(self, images: Sequence[bytes]) -> Float[np.ndarray, "b d"]:
        """Return the descriptors of encoded images.

        Raises:
            DataError: If an image has no descriptor.
        """
        samples = [Sample(str(row), image) for row, image in enumerate(images)]
        made = embed(
            self.encoder,
            samples,
            batch_size=self.batch_size,
            device=self.device,
            flips=self.database.encoder["flips"],
            progress=False,
        )
        if len(made) < len(images):
            raise DataError(f"An image could not be embedded: {made.damaged[0][1]}.")
        return made.descriptors

    def where(self, chosen: Mapping[str, str]) -> str | None:
        """Return the filter that admits works with the chosen values of the columns; an empty value admits all.

        Raises:
            ConfigError: If a column or value is not one of `filters`.
        """
        parts = []
        for column, value in chosen.items():
            if not value:
                continue
            if value not in self.filters.get(column, ()):
                raise ConfigError(f"{column!r} has no value {value!r} that works can be filtered by.")
            operator = "contains" if column == "tags" else "="
            parts.append(f"{column} {operator} '{value.replace(chr(39), chr(39) * 2)}'")
        return " and ".join(parts) or None

    def search(self, descriptor: Float[np.ndarray, " d"], k: int, where: str | None) -> list[dict[str, Any]]:
        """Return the k works nearest to a descriptor, each with its number, similarity and metadata."""
        found = self.database.search(descriptor[None], k, where=where)
        rows = found.table(["query"]).drop(columns=["query"]).to_dict("records")
        return [
            {"work": self.numbers.get(row["id"]), **{str(n): _plain(v) for n, v in row.items() if _is_known(v)}}
            for row in rows
        ]

    def attribute(self, descriptor: Float[np.ndarray, " d"]) -> dict[str, Any]:
        """Return the verdict on a descriptor and the labels that it is nearest to.

        Raises:
            DataError: If the works have fewer than two labels.
        """
        if isinstance(self.attributor, str):
            raise DataError(self.attributor)
        image = DescriptorSet(descriptor[None], item_table([("upload", [], None, "", 0)]), self.meta)
        attribution = self.attributor.attribute(image)
        verdict = {str(n): _plain(v) for n, v in attribution.verdicts.iloc[0].items() if n != "query" and _is_known(v)}
        labels = attribution.table.drop(columns=["query"]).to_dict("records")
        return {
            **verdict,
            "ranking": [{str(name): _plain(value) for name, value in row.items()} for row in labels],
            "reliability": attribution.reliability,
            "notes": attribution.notes,
        }

    def score(self, generated: Float[np.ndarray, "n d"], reference: Float[np.ndarray, "m d"]) -> dict[str, Any]:
        """Return how similar two sets of images are in style, with a 95 % interval over the generated images."""
        scores = mean_scores(generated.mean(0, dtype=np.float64), reference.mean(0, dtype=np.float64))
        low, high = bootstrap_interval(generated @ reference.mean(0)) if len(generated) > 1 else (None, None)
        counts = {"generated": len(generated), "reference": len(reference)}
        return {**{name: float(value) for name, value in scores.items()}, "low": low, "high": high, **counts}

    def thumbnail(self, number: int) -> bytes | None:
        """Return the thumbnail of a work by its number, as JPEG."""
        if not 0 <= number < len(self._ids):
            return None
        stored = self.database.items([self._ids[number]], ["thumbnail"])
        return stored["thumbnail"].iloc[0] if len(stored) else None


def _filters(items: pd.DataFrame, metadata: pd.DataFrame, columns: Mapping[str, str]) -> dict[str, list[str]]:
    filters = {"tags": sorted({tag for tags in items["tags"] for tag in tags})}
    for name in metadata.columns.difference(["id"]):
        if columns.get(name) == "text":
            filters[name] = sorted(metadata[name].dropna().unique().tolist())
    return {name: values for name, values in filters.items() if 1 < len(values) <= FILTER_VALUES}


def _is_known(value: Any) -> bool:
    return isinstance(value, list) or not (value is None or value != value)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: no numpy types, no NaN."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
