"""stylesim learns and measures artistic style in images.

Public names load on first use, so that `import stylesim` costs nothing and imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylesim.describe import describe
    from stylesim.encoders import StyleEncoder, load_checkpoint
    from stylesim.errors import StylesimError
    from stylesim.learning.losses import csd_loss
    from stylesim.measure import measure
    from stylesim.retrieval.descriptors import DescriptorSet
    from stylesim.retrieval.metrics import retrieval_metrics
    from stylesim.retrieval.search import search
    from stylesim.retrieval.spec import RetrievalSpec

_HOMES = {
    "DescriptorSet": "retrieval.descriptors",
    "RetrievalSpec": "retrieval.spec",
    "StyleEncoder": "encoders.base",
    "StylesimError": "errors",
    "csd_loss": "learning.losses",
    "describe": "describe",
    "load_checkpoint": "encoders.checkpoint",
    "measure": "measure",
    "retrieval_metrics": "retrieval.metrics",
    "search": "retrieval.search",
}
__all__ = [
    "DescriptorSet",
    "RetrievalSpec",
    "StyleEncoder",
    "StylesimError",
    "csd_loss",
    "describe",
    "load_checkpoint",
    "measure",
    "retrieval_metrics",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stylesim' has no attribute {name!r}")
    return getattr(import_module(f"stylesim.{_HOMES[name]}"), name)
