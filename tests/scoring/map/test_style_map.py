from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import false_discovery_control, fisher_exact

from stylesim.core.errors import ConfigError, DataError
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.scoring.map.cluster_profiles import central_images, frequent_tags
from stylesim.scoring.map.clusters import agreement, find_clusters
from stylesim.scoring.map.layout import lay_out, layout_quality
from stylesim.scoring.map.style_map import style_map


def planted(groups: int = 4, each: int = 30, noise: float = 0.15) -> DescriptorSet:
    """Return descriptors around orthogonal directions, tagged by direction; what they show is independent of it."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(groups), each)
    x = np.eye(8)[group] + noise * rng.standard_normal((len(group), 8))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    rows = ((f"{i}.png", [f"artist:{g}"], "dog" if i % 2 else "cat", "s", i) for i, g in enumerate(group))
    return DescriptorSet(x, item_table(rows))


@pytest.mark.parametrize("cluster", ["kmeans", "hdbscan"])
def test_planted_styles_are_found_and_are_not_content(cluster) -> None:
    made = style_map(planted(), method="tsne", cluster=cluster, label="artist:*")
    metrics = made.metrics()
    assert metrics["clusters"] == 4
    assert metrics["ami_labels"] > 0.95
    assert abs(metrics["ami_labels_shuffled"]) < 0.1
    assert abs(metrics["ami_content"]) < 0.1
    assert metrics["trustworthiness"] > 0.85
    assert set(made.tags["tag"]) == {f"artist:{g}" for g in range(4)}


@pytest.mark.slow
def test_umap_keeps_groups_together_and_is_deterministic() -> None:
    x = planted().descriptors
    layout = lay_out(x, seed=3)
    assert layout.shape == (120, 2)
    assert np.array_equal(layout, lay_out(x, seed=3))
    assert layout_quality(x, layout).trustworthiness > layout_quality(x, np.roll(layout, 37, axis=0)).trustworthiness
    assert agreement(find_clusters(layout, number=4), np.repeat(np.arange(4), 30).tolist()).ami > 0.95


def test_a_layout_that_is_the_data_has_perfect_quality() -> None:
    angle = np.random.default_rng(0).uniform(0, 6.28, 40)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert layout_quality(x, x) == (1, 1)


def test_frequent_tags_are_those_of_fishers_test() -> None:
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 2, 60)
    tags = [[t for t in "abc" if rng.random() < (0.8 if t == "a" and c else 0.3)] for c in clusters]
    pairs = [(c, t) for c in (0, 1) for t in "abc"]
    p = []
    for c, t in pairs:
        has, inside = np.array([t in of_image for of_image in tags]), clusters == c
        counts = [[(has & inside).sum(), (~has & inside).sum()], [(has & ~inside).sum(), (~has & ~inside).sum()]]
        p.append(fisher_exact(counts, alternative="greater")[1])
    found = frequent_tags(clusters, tags, alpha=1)
    expected = dict(zip(pairs, false_discovery_control(p), strict=True))
    for row in found.to_dict("records"):
        assert row["p_value"] == pytest.approx(expected[row["cluster"], row["tag"]])
    assert frequent_tags(clusters, tags)["tag"].tolist() == ["a"]


def test_central_images_are_nearest_to_the_mean() -> None:
    x = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6], [0, -1]])
    central = central_images(x, np.array([0, 0, 0, -1]), k=1)
    assert {cluster: rows.tolist() for cluster, rows in central.items()} == {0: [2]}


def test_mistakes_are_refused_in_a_sentence() -> None:
    x = planted().descriptors
    with pytest.raises(ConfigError, match="from 2 to the number of images, 120, got 1"):
        find_clusters(x, number=1)
    with pytest.raises(ConfigError, match="HDBSCAN finds the number"):
        find_clusters(x, "hdbscan", number=3)
    with pytest.raises(DataError, match="at least 5 images, got 4"):
        lay_out(x[:4])


def test_no_labels_give_no_agreement() -> None:
    assert agreement(np.array([0, 1]), [None, None]).images == 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"method": "pca"}, "method must be one of umap, tsne, got 'pca'"),
        ({"cluster": "dbscan"}, "cluster must be one of kmeans, hdbscan, got 'dbscan'"),
    ],
)
def test_an_unknown_method_is_refused_with_the_known_ones(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        style_map(planted(), **option)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylesim.scoring.map.style_map.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "stylesim\[map\]"'):
        style_map(planted())
