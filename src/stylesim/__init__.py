"""stylesim learns and measures artistic style in images.

Public names load on first use, so that `import stylesim` costs nothing and imports no torch. `describe` (images to
descriptors) and `measure` (an encoder on retrieval sets) are modules with a function of their name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylesim.core.errors import StylesimError as StylesimError
    from stylesim.encoders.catalogue import list_models as list_models
    from stylesim.encoders.load import load_encoder as load_encoder
    from stylesim.encoders.style_encoder import StyleEncoder as StyleEncoder
    from stylesim.encoders.weights.checkpoint import load_checkpoint as load_checkpoint
    from stylesim.evaluation.metrics import retrieval_metrics as retrieval_metrics
    from stylesim.evaluation.retrieval_spec import RetrievalSpec as RetrievalSpec
    from stylesim.learning.losses import csd_loss as csd_loss
    from stylesim.retrieval.descriptor_set import DescriptorSet as DescriptorSet
    from stylesim.retrieval.exact_search import search as search
    from stylesim.scoring.style_similarity import StyleSimilarity as StyleSimilarity

_HOMES = {
    "DescriptorSet": "retrieval.descriptor_set",
    "RetrievalSpec": "evaluation.retrieval_spec",
    "StyleEncoder": "encoders.style_encoder",
    "StyleSimilarity": "scoring.style_similarity",
    "StylesimError": "core.errors",
    "csd_loss": "learning.losses",
    "list_models": "encoders.catalogue",
    "load_checkpoint": "encoders.weights.checkpoint",
    "load_encoder": "encoders.load",
    "retrieval_metrics": "evaluation.metrics",
    "search": "retrieval.exact_search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stylesim' has no attribute {name!r}")
    return getattr(import_module(f"stylesim.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
