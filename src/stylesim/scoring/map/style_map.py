"""Map a descriptor set: layout, clusters, what is in them, and how far both can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stylesim.core.errors import ConfigError
from stylesim.retrieval.descriptor_set import DescriptorSet, refuse_bad_descriptors
from stylesim.retrieval.readouts import Cosine, Readout
from stylesim.scoring.map.cluster_profiles import central_images, frequent_tags
from stylesim.scoring.map.clusters import Agreement, Algorithm, agreement, find_clusters, silhouette
from stylesim.scoring.map.layout import LayoutQuality, Method, lay_out, layout_quality


@dataclass(frozen=True)
class StyleMap:
    """Images on a map, in clusters.

    Attributes:
        items: `id`, `tags`, `content` of each image.
        layout: Its position.
        clusters: Its cluster, the largest being 0; -1 is in none.
        central: Rows of the most central images of each cluster.
        tags: Tags that are more frequent in a cluster than elsewhere (see `frequent_tags`).
        quality: How many neighbourhoods the layout keeps.
        silhouette: Mean silhouette of the clusters under cosine distance.
        labels: Agreement of the clusters with the first tag of each image that `label` admits.
        content: Agreement of the clusters with what the images show.
    """

    items: pd.DataFrame
    layout: Float[np.ndarray, "n 2"]
    clusters: Int[np.ndarray, " n"]
    central: dict[int, Int[np.ndarray, " m"]]
    tags: pd.DataFrame
    quality: LayoutQuality
    silhouette: float
    labels: Agreement
    content: Agreement

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the map by name; those that cannot be computed are left out."""
        sizes = np.unique(self.clusters[self.clusters >= 0])
        named = {
            "images": float(len(self.items)),
            "clusters": float(len(sizes)),
            "unclustered": float((self.clusters < 0).sum()),
            **self.quality._asdict(),
            "silhouette": self.silhouette,
            "ami_labels": self.labels.ami,
            "ami_labels_shuffled": self.labels.shuffled,
            "ami_content": self.content.ami,
            "ami_content_shuffled": self.content.shuffled,
        }
        return {name: value for name, value in named.items() if value == value}


def style_map(
    images: DescriptorSet,
    *,
    method: Method = "umap",
    cluster: Algorithm = "kmeans",
    clusters: int | None = None,
    label: str = "*",
    readout: Readout | None = None,
    neighbours: int = 15,
    seed: int = 0,
) -> StyleMap:
    """Lay a descriptor set out in two dimensions and divide it into clusters.

    Clusters are found by the descriptors, not on the map.

    Args:
        images: The descriptors.
        method: `umap` or `tsne`.
        cluster: `kmeans` or `hdbscan`.
        clusters: Number of clusters of k-means; None takes the one with the largest silhouette.
        label: Which tags the clusters are compared with: a glob such as `artist:*`.
        readout: Transformation of the descriptors; None leaves them as they are.
        neighbours: Size of a neighbourhood, in the layout and in its quality.
        seed: Seed of everything random.

    Raises:
        DataError: If there are fewer than five images, or a descriptor is NaN, infinite or zero.
        ConfigError: If the number of clusters is out of range, `method` or `cluster` is unknown, or the packages of the
            extra `map` are not installed.
    """
    if any(find_spec(package) is None for package in ("sklearn", "umap")):
        raise ConfigError('A map needs scikit-learn and umap-learn. Install them with: pip install "stylesim[map]"')
    for name, value, options in (("method", method, get_args(Method)), ("cluster", cluster, get_args(Algorithm))):
        if value not in options:
            raise ConfigError(f"{name} must be one of {', '.join(options)}, got {value!r}.")
    refuse_bad_descriptors(images.descriptors, images.ids)
    x = np.asarray((readout or Cosine())(images.descriptors, images.descriptors)[1], dtype=np.float32)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    layout = lay_out(x, method, neighbours=neighbours, seed=seed)
    found = find_clusters(x, cluster, number=clusters, seed=seed)
    tags = images.items["tags"].tolist()
    labels = [next((tag for tag in of_image if fnmatchcase(tag, label)), None) for of_image in tags]
    return StyleMap(
        items=images.items.loc[:, ["id", "tags", "content"]],
        layout=layout,
        clusters=found,
        central=central_images(x, found),
        tags=frequent_tags(found, tags),
        quality=layout_quality(x, layout, neighbours=neighbours, seed=seed),
        silhouette=silhouette(x, found, seed),
        labels=agreement(found, labels, seed=seed),
        content=agreement(found, images.items["content"].tolist(), seed=seed),
    )
