"""Names that earlier versions wrote into configurations and checkpoints, and what they are called now."""

from __future__ import annotations

_MODULES = {
    "stylesim.curation.downloads": "stylesim.curation.sources.img2dataset",
}
