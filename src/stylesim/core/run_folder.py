"""Names of the files in a run folder that more than one package reads or writes."""

from __future__ import annotations

from pathlib import Path

LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""The whole training state, from which `resume` continues."""
BEST_WEIGHTS = Path("checkpoints") / "best.safetensors"
"""The encoder with the best validation metric, or that of the last step if no metric is monitored."""
LAST_WEIGHTS = Path("checkpoints") / "last.safetensors"
"""The encoder of the last step."""
