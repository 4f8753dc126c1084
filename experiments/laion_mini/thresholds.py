"""Show what other thresholds, and other whitenings, of the descriptors of stage 4 would have found.

`python experiments/laion_mini/thresholds.py --corpus outputs/laion_mini/0/corpus --work outputs/laion_mini/0/work`
compares all descriptors that `stylesim.curate` has written with each other and with those of the evaluation sets. It
prints a table for each kind of comparison. For each threshold, a table has the number of pairs of different originals
above it, the share of planted copies that lie above it with their original, the share of planted test images that lie
above it with an image of an evaluation set, and the number of other images that do. `deduplicate.threshold` and
`deduplicate.whiten` were chosen by it, on seed 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from check import KINDS, read_descriptors, whitening

THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.77, 0.8, 0.85, 0.9, 0.95)


def similarities(folder: Path, axes: int | None) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return (ids, similarity of each pair, similarity of each image to the nearest image of an evaluation set)."""
    ids, vectors = read_descriptors(folder / "descriptors")
    whiten = whitening(vectors, axes)
    tests = [whiten(read_descriptors(path)[1]) for path in sorted((folder / "evaluation").iterdir())]
    corpus = whiten(vectors)
    return ids, corpus @ corpus.T, (corpus @ np.concatenate(tests).T).max(axis=1)


def table(truth: pd.DataFrame, between: np.ndarray, to_tests: np.ndarray) -> pd.DataFrame:
    """Return a row for each threshold; `truth` has the order of the similarities."""
    kinds, drawings = truth["kind"].to_numpy(), truth["picture"].to_numpy()
    originals = np.flatnonzero(kinds == "original")
    original = {drawings[row]: row for row in originals}
    pairs = between[np.ix_(originals, originals)][np.triu_indices(len(originals), 1)]
    columns = {"pairs of originals": pairs}
    for kind in KINDS[1:]:  # images with equal bytes are grouped before anything is embedded
        rows = [row for row in np.flatnonzero(kinds == kind) if drawings[row] in original]
        columns[kind] = np.array([between[row, original[drawings[row]]] for row in rows])
    tests = ("test", "recompressed test")
    columns |= {kind: to_tests[kinds == kind] for kind in tests}
    columns["taken for test images"] = to_tests[~np.isin(kinds, tests)]
    counted = ("pairs of originals", "taken for test images")
    found = {
        name: [int((values > t).sum()) if name in counted else float((values > t).mean()) for t in THRESHOLDS]
        for name, values in columns.items()
    }
    return pd.DataFrame({"threshold": THRESHOLDS} | found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("outputs/laion_mini/0/corpus"), help="of make_corpus.py")
    parser.add_argument("--work", type=Path, default=Path("outputs/laion_mini/0/work"), help="of stylesim.curate")
    args = parser.parse_args()
    truth = pq.read_table(args.corpus / "truth.parquet").to_pandas().set_index("id")
    for axes in (None, 128, 256):
        ids, between, to_tests = similarities(args.work / "4-deduplicate", axes)
        print("not whitened" if axes is None else f"whitened, {axes} axes")
        print(table(truth.loc[ids], between, to_tests).to_string(index=False, float_format="%.2f"))


if __name__ == "__main__":
    main()
