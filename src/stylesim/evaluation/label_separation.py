"""How well a read-out separates the labels of a descriptor set: gaps and pair verification together."""

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
    """As `discrimination_gap`, with its `variant`."""
    pairs: PairVerification

    @property
    def metrics(self) -> dict[str, float]:
        """The AUC, and the share of labels nearer to another than to themselves, in pairs and by prototypes."""
        gaps = self.labels.dropna(subset="gap").groupby("variant")["gap"]
        return {"auc": self.pairs.auc} | {
            f"negative_gaps_{name}": float(np.mean(gap.to_numpy() < 0)) for name, gap in gaps
        }


def label_separation(images: DescriptorSet, relevant: str, readout: Readout | None = None) -> LabelSeparation:
    """The gap of every label that the glob `relevant` selects, and the AUC of pairs, as `readout` compares images.

    A read-out other than CSLS is fitted on these images. Images with no label, or several, are left out: a pair would
    be of one label and of two. Raises StylesimError for fewer than two labels.
    """
    values = label_values(images.items, relevant)
    single = images.select([row for row, found in enumerate(values) if len(found) == 1])
    labels = [found[0] for found in values if len(found) == 1]
    csls = readout.k if isinstance(readout, Csls) else None
    x = np.asarray(single.descriptors)
    if readout is not None and csls is None:
        x = readout(x, x, query_ids=single.ids, gallery_ids=single.ids)[1]
    gaps = [discrimination_gap(x, labels, variant=v, csls=csls).assign(variant=v) for v in get_args(Variant)]
    return LabelSeparation(pd.concat(gaps, ignore_index=True), verification_auc(x, labels, csls=csls))
