from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.evaluation.evaluate_descriptors import evaluate_descriptors
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table


def make_set(name: str, styles: list[list[str]], contents: list[str | None], vectors: np.ndarray) -> DescriptorSet:
    rows = zip(styles, contents, strict=True)
    items = item_table((f"{name}/{i}", tags, content, name, i) for i, (tags, content) in enumerate(rows))
    return DescriptorSet(vectors.astype(np.float32), items)


def drawings(seed: int = 0) -> DescriptorSet:
    """Return 3 styles x 4 contents: the first half of a descriptor is the style, the second the content."""
    style, content = np.divmod(np.arange(12), 4)
    noise = np.random.default_rng(seed).standard_normal((12, 8)) * 1e-3
    x = np.concatenate([np.eye(4)[style] * 0.6, np.eye(4)[content] * 0.8], axis=1) + noise
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return make_set("d", [[f"set:{s}"] for s in style], [f"c{c}" for c in content], x)


def test_distinct_excludes_neighbours_with_the_same_content():
    queries = drawings()
    plain = evaluate_descriptors(queries, None, RetrievalSpec(["d"], relevant="set:*", ks=(1, 3)))
    strict = evaluate_descriptors(queries, None, RetrievalSpec(["d"], relevant="set:*", distinct="content", ks=(1, 3)))

    assert plain.metrics["recall@1"] == 0  # the same content in another style is nearer
    assert strict.metrics["recall@1"] == strict.metrics["map@3"] == 1
    assert plain.metrics["chance_recall@1"] == pytest.approx(3 / 11)
    assert strict.metrics["chance_recall@1"] == pytest.approx(3 / 9)
    assert (plain.metrics["queries"], plain.metrics["gallery"]) == (12, 12)


def test_the_swapped_spec_evaluates_content():
    spec = RetrievalSpec(["d"], relevant="set:*", distinct="content", ks=(1, 2))
    assert spec.swapped() == RetrievalSpec(["d"], relevant="content", distinct="set:*", ks=(1, 2))
    assert RetrievalSpec(["d"], relevant="set:*").swapped().relevant == "content"
    content = evaluate_descriptors(drawings(), None, spec.swapped()).metrics
    assert content["recall@1"] == content["map@2"] == 1


def test_any_shared_tag_is_relevant_and_queries_without_one_count_as_zero():
    queries = make_set("q", [["a:x", "a:y"], ["a:z"], ["b:x"]], [None] * 3, np.eye(3))
    gallery = make_set("g", [["a:y"], ["a:y", "a:w"], ["b:x"]], [None] * 3, np.eye(3))
    result = evaluate_descriptors(queries, gallery, RetrievalSpec(["q"], ["g"], relevant="a:*", ks=(3,)))

    assert result.relevance.tolist() == [[True, True, False], [False] * 3, [False] * 3]
    assert result.metrics["recall@3"] == pytest.approx(1 / 3)
    assert result.metrics["queries_without_relevant"] == 2
    assert result.metrics["chance_recall@1"] == pytest.approx(2 / 9)


@settings(max_examples=25)
@given(st.integers(0, 999), st.booleans(), st.sampled_from([16, 64, 16384]))
def test_counts_cover_the_whole_gallery_after_exclusion_for_any_block(seed, several, block):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    tags = [sorted({f"s:{t}" for t in rng.integers(0, 4, int(rng.integers(0, 3)) if several else 1)}) for _ in range(n)]
    tags[0] = ["s:0"]
    contents = [None if c == 0 else f"c{c}" for c in rng.integers(0, 4, n)]
    contents[0] = "c1"
    items = make_set("r", tags, contents, rng.standard_normal((n, 3)))
    result = evaluate_descriptors(
        items, None, RetrievalSpec(["r"], relevant="s:*", distinct="content", ks=(1, n)), block=block
    )
    chances = []
    for q in range(n):
        pool = [j for j in range(n) if j != q and (contents[q] is None or contents[j] != contents[q])]
        right = [j for j in pool if set(tags[j]) & set(tags[q])]
        chances.append(len(right) / max(1, len(pool)))
        found = [j for j in result.neighbours.indices[q].tolist() if j >= 0]
        assert sorted(found) == pool
        assert result.relevance[q].sum() == len(right)
    assert result.metrics["chance_recall@1"] == pytest.approx(np.mean(chances))


def test_groups_of_tags_match_the_metrics_of_a_spec_of_their_own():
    queries = drawings()
    families = [[*tags, f"family:{int(tags[0][-1]) // 2}", "medium:ink"] for tags in queries.items["tags"]]
    queries = DescriptorSet(queries.descriptors, queries.items.assign(tags=families), {})
    plain = RetrievalSpec(["d"], relevant="set:*", distinct="content", ks=(1, 4))
    found = evaluate_descriptors(queries, None, replace(plain, groups=("family", "medium"))).metrics
    family = evaluate_descriptors(queries, None, replace(plain, relevant="family:*")).metrics
    assert found["family_map@4"] == family["map@4"] != found["map@4"]
    assert found["family_precision@4"] > found["precision@4"]
    assert found["medium_precision@4"] == 1
    assert {name.split("_")[0] for name in found if name.endswith("recall@4")} == {"recall@4", "family", "medium"}
    with pytest.raises(StylesimError, match="artist:"):
        evaluate_descriptors(queries, None, replace(plain, groups=("artist",)))


def test_limit_takes_a_fixed_sample_of_the_queries_and_the_whole_gallery():
    everything = drawings()
    spec = RetrievalSpec(["d"], relevant="set:*", limit=5, ks=(1,))
    result = evaluate_descriptors(everything, None, spec)
    assert (result.metrics["queries"], result.metrics["gallery"]) == (5, 12)

    shuffled = everything.select(np.random.default_rng(1).permutation(12))
    again = evaluate_descriptors(shuffled, None, spec)
    assert set(again.queries.ids) == set(result.queries.ids)
    assert again.metrics == pytest.approx(result.metrics)


def test_a_selector_that_matches_nothing_is_refused():
    with pytest.raises(StylesimError, match=r"No query image has a value for 'artist:\*'\. Its tags are set:0, set:1"):
        evaluate_descriptors(drawings(), None, RetrievalSpec(["d"], relevant="artist:*"))
