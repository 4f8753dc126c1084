from __future__ import annotations

import numpy as np
from clusters import artists

from stylesim.evaluation.label_separation import label_separation
from stylesim.evaluation.pair_verification import verification_auc
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.retrieval.readouts import Csls


def test_separation_counts_negative_gaps_and_leaves_out_images_with_several_labels():
    x, labels = artists(4, (20, 20, 20), noise=0.3)
    rows = [(str(i), [f"set:{label}"], None, "r", i) for i, label in enumerate(labels)]
    rows += [("none", [], None, "r", 60), ("both", ["set:a", "set:b"], None, "r", 61)]
    images = DescriptorSet(np.concatenate([x, x[:2]]), item_table(rows), {})
    found = label_separation(images, "set:*")
    assert found.pairs == verification_auc(x, labels)
    assert sorted(found.labels["variant"].unique()) == ["pairwise", "prototype"]
    assert set(found.labels["images"]) == {20}
    assert found.metrics == {"auc": found.pairs.auc, "negative_gaps_pairwise": 0.0, "negative_gaps_prototype": 0.0}
    assert label_separation(images, "set:*", Csls(5)).pairs == verification_auc(x, labels, csls=5)
    confused = DescriptorSet(images.descriptors, images.items.assign(tags=list(reversed(images.items["tags"]))), {})
    assert label_separation(confused, "set:*").metrics["negative_gaps_pairwise"] > 0
