"""Measure how well a read-out separates the labels of a descriptor set, by gaps and by pair verification."""

from __future__ import annotations

from typing import NamedTuple, get_args

import numpy as np
import pandas as pd

from stylesim.evaluation.discrimination_gap import Variant, discrimination_gap
from stylesim.evaluation.labels import label_values
from stylesim.evaluation.pair_verification import PairVerification, verification_auc
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.readouts import Csls, Readout


class LabelSeparation(NamedTuple):
    """How well a read-out's similarity separates the labels of a set."""

    labels: pd.DataFrame
    """As from `discrimination_gap`, with the column `variant`."""
    pairs: PairVerification

    @property
    def metrics(self) -> dict[str, float]:
        """The AUC of pairs, and for both variants of the gap the share of labels with a negative gap."""
        gaps = self.labels.dropna(subset="gap").groupby("variant")["gap"]
        return {"auc": self.pairs.auc} | {
            f"negative_gaps_{name}": float(np.mean(gap.to_numpy() < 0)) for name, gap in gaps
        }


def label_separation(images: DescriptorSet, relevant: str, readout: Readout | None = None) -> LabelSeparation:
    """Compute the discrimination gap of every label and the verification AUC of pairs.

    Args:
        images: The set. Images without a label or with several labels are left out, because it must be clear whether
            two images have the same label.
        relevant: Selector of the labels, as in `RetrievalSpec`.
        readout: Transformation of the descriptors before they are compared; it is fitted on these images.

    Returns:
        The gaps of all labels, in both variants, and the AUC.

    Raises:
        DataError: If there are fewer than two labels, or no two images share one.
    """
    values = label_values(images.items, relevant)
    single = images.select([row for row, labels in enumerate(values) if len(labels) == 1])
    labels = [labels[0] for labels in values if len(labels) == 1]
    csls = readout.k if isinstance(readout, Csls) else None
    x = np.asarray(single.descriptors)
    if readout is not None and csls is None:
        x = readout(x, x, query_ids=single.ids, gallery_ids=single.ids)[1]
    gaps = [discrimination_gap(x, labels, variant=v, csls=csls).assign(variant=v) for v in get_args(Variant)]
    return LabelSeparation(pd.concat(gaps, ignore_index=True), verification_auc(x, labels, csls=csls))
