"""Names of the files in a run folder that more than one package reads or writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""The whole training state, from which `resume` continues."""
BEST_WEIGHTS = Path("checkpoints") / "best.safetensors"
"""The encoder with the best validation metric, or that of the last step if no metric is monitored."""
LAST_WEIGHTS = Path("checkpoints") / "last.safetensors"
"""The encoder of the last step."""

RESULTS_OF_EVALUATION = (
    "descriptors",
    "encoders.json",
    "errors",
    "finished.json",
    "galleries",
    "gaps.csv",
    "metrics.json",
    "per_query.parquet",
    "report.html",
    "table.csv",
)
"""What an evaluation leaves in its run folder; a training run leaves it too, at its end."""
RESULTS_OF_SCORE = ("labels.csv", "metrics.json", "pairs.csv", "per_image.csv", "score.html", "score.json")
"""What `score` leaves in its run folder, besides descriptors."""
RESULTS_OF_RANKING = ("comparisons.csv", "metrics.json", "per_image.csv", "ranking.csv", "ranking.html", "ranking.json")
"""What `rank` leaves in its run folder, besides descriptors."""
RESULTS = sorted({"checkpoints", "metrics.csv", *RESULTS_OF_EVALUATION, *RESULTS_OF_SCORE, *RESULTS_OF_RANKING})
"""What shows that a run has worked in a folder."""


def remove_results(run_dir: Path, names: Iterable[str]) -> None:
    """Delete these files and folders of a run folder, as far as they exist."""
    for name in names:
        path = run_dir / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
