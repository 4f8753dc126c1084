"""What other thresholds, and other whitenings, of the duplicates' descriptors would have found.

`python experiments/laion_mini/thresholds.py --corpus outputs/laion_mini/0/corpus --work outputs/laion_mini/0/work`
compares all the descriptors that `stylesim.curate` has left with each other and with those of the evaluation sets, and
prints a table for each way to compare them: for each threshold the pairs of different originals above it, the share of
planted copies that lie above it to their original, the share of planted test pictures that lie above it to one of the
evaluation sets, and how many other pictures do. `deduplicate.threshold` and `deduplicate.whiten` were chosen by it, on
seed 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from check import KINDS, descriptors, reading

THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.77, 0.8, 0.85, 0.9, 0.95)


def similarities(folder: Path, axes: int | None) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(ids, similarity of each two, similarity of each to the nearest picture of an evaluation set)."""
    ids, vectors = descriptors(folder / "descriptors")
    compared = reading(vectors, axes)
    tests = [compared(descriptors(path)[1]) for path in sorted((folder / "evaluation").iterdir())]
    own = compared(vectors)
    return ids, own @ own.T, (own @ np.concatenate(tests).T).max(axis=1)


def table(truth: pd.DataFrame, between: np.ndarray, to_tests: np.ndarray) -> pd.DataFrame:
    """A row for each threshold; `truth` in the order of the similarities."""
    kinds, pictures = truth["kind"].to_numpy(), truth["picture"].to_numpy()
    originals = np.flatnonzero(kinds == "original")
    original = {pictures[row]: row for row in originals}
    pairs = between[np.ix_(originals, originals)][np.triu_indices(len(originals), 1)]
    columns = {"pairs of originals": pairs}
    for kind in KINDS[1:]:  # equal bytes are joined before anything is described
        rows = [row for row in np.flatnonzero(kinds == kind) if pictures[row] in original]
        columns[kind] = np.array([between[row, original[pictures[row]]] for row in rows])
    tests = ("test", "recompressed test")
    columns |= {kind: to_tests[kinds == kind] for kind in tests}
    columns["taken for test pictures"] = to_tests[~np.isin(kinds, tests)]
    counted = ("pairs of originals", "taken for test pictures")
    found = {
        name: [int((values > t).sum()) if name in counted else float((values > t).mean()) for t in THRESHOLDS]
        for name, values in columns.items()
    }
    return pd.DataFrame({"threshold": THRESHOLDS} | found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("outputs/laion_mini/0/corpus"), help="of make_corpus.py")
    parser.add_argument("--work", type=Path, default=Path("outputs/laion_mini/0/work"), help="of stylesim.curate")
    given = parser.parse_args()
    truth = pq.read_table(given.corpus / "truth.parquet").to_pandas().set_index("id")
    for axes in (None, 128, 256):
        ids, between, to_tests = similarities(given.work / "4-deduplicate", axes)
        print("as they are" if axes is None else f"whitened, {axes} axes")
        print(table(truth.loc[ids], between, to_tests).to_string(index=False, float_format="%.2f"))


if __name__ == "__main__":
    main()
