"""The images of a stage with their fingerprints and descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from stylesim.core.stages.stage_parts import part_paths
from stylesim.curation.deduplicate.embed_images import ImageEmbedder, StageImages
from stylesim.curation.deduplicate.fingerprints import FINGERPRINTS, fingerprints
from stylesim.curation.stage import Stage, read_stage

if TYPE_CHECKING:
    from stylesim.retrieval.descriptor_set import DescriptorSet


@dataclass(frozen=True)
class EmbeddedCorpus:
    """The n images of the previous stage and their m descriptors: images with equal pixels share a descriptor."""

    table: pa.Table
    """The columns `id`, `image` and `tags`."""
    fingerprints: pa.Table
    """The fingerprints, one row for each image."""
    embedded: DescriptorSet
    rows: Int[np.ndarray, " m"]
    """The image that each descriptor was made from."""
    representatives: Int[np.ndarray, " n"]
    """For each image, the row of the image that is embedded for it: of all images with the same pixels, the one with
    the smallest id. -1 if the image is unreadable."""

    @property
    def descriptor_rows(self) -> Int[np.ndarray, " n"]:
        """The row of each image's descriptor; -1 if it has none."""
        descriptor_rows = np.full(len(self.table) + 1, -1)  # the last element is for images with representative -1
        descriptor_rows[self.rows] = np.arange(len(self.rows))
        return descriptor_rows[self.representatives]

    def fingerprint(self, column: str) -> Int[np.ndarray, " m"]:
        """Return a column of the fingerprints for each descriptor."""
        return self.fingerprints[column].take(pa.array(self.rows)).to_numpy().astype(np.int64)

    def keepers(self, labels: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return, for each descriptor, the descriptor of the image of its component that is kept.

        This is the image with the most pixels, and of several the one with the smallest id.
        """
        area = self.fingerprint("width") * self.fingerprint("height")
        rank = np.argsort(np.argsort(np.array(self.embedded.ids, dtype=str), kind="stable"))
        order = np.lexsort((rank, -area, labels))
        first = np.flatnonzero(np.diff(labels[order], prepend=-1))
        keeper = np.full(len(labels), -1)
        keeper[labels[order[first]]] = order[first]
        return keeper[labels]


def embed_corpus(stage: Stage, embedder: ImageEmbedder) -> EmbeddedCorpus:
    """Embed the images of the previous stage, one image of each group with equal pixels.

    Fingerprints are written to `fingerprints/` and descriptors to `descriptors/`, in the folder of the stage.

    Args:
        stage: The stage, which has begun.
        embedder: Embeds the images.

    Returns:
        The images with their fingerprints and descriptors.
    """
    assert stage.source is not None, "this is not the first stage"
    table = read_stage(stage.source, ["id", "image", "tags"])
    substage = Stage(
        stage.folder / "fingerprints", {}, stage.source, stage.processes, show=stage.show, schema=FINGERPRINTS
    )
    if substage.begin() is None:
        substage.finish(substage.map_parts(fingerprints))
    parts = [pq.read_table(path).replace_schema_metadata() for path in part_paths(substage.folder)]
    fingerprint_table = pa.concat_tables([FINGERPRINTS.empty_table(), *parts])
    representatives = _representatives(fingerprint_table)
    unique = np.flatnonzero(representatives == np.arange(len(representatives)))
    chosen = table.take(pa.array(unique))
    images = StageImages(chosen["id"].to_pylist(), chosen["image"].to_pylist())
    embedded = embedder(images, stage.folder / "descriptors")
    rows = unique[embedded.items["position"].to_numpy(np.int64)]
    return EmbeddedCorpus(table, fingerprint_table, embedded, rows, representatives)


def _representatives(fingerprint_table: pa.Table) -> Int[np.ndarray, " n"]:
    representatives = np.full(len(fingerprint_table), -1)
    order = np.argsort(np.array(fingerprint_table["id"].to_pylist(), dtype=str), kind="stable")
    pixels = fingerprint_table["pixels"].to_pylist()
    first: dict[str, int] = {}
    for row in order.tolist():
        if pixels[row] is not None:
            representatives[row] = first.setdefault(pixels[row], row)
    return representatives
