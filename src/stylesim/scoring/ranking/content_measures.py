"""CAS and CFSD: how much of an image's content and structure is kept when its style changes, as pure functions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, normalize

TEMPERATURE = 0.1
"""Divides the cosines of patches in CFSD before the softmax."""


def cas(images: Float[Tensor, "b c h w"], contents: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Compute the content alignment score of CSGO (arXiv 2408.16766): a distance, so less is better.

    Each channel of a feature map is standardised over its pixels, which removes what AdaIN calls its style. CAS is the
    mean squared difference of what remains: 0 for the same map, and 2 for unrelated ones.
    """
    return (_standardised(images) - _standardised(contents)).square().mean(dim=(1, 2, 3))


def cfsd(images: Float[Tensor, "b c h w"], contents: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Compute the content feature structural distance (Chung et al. 2024), in a variant: less is better.

    For each patch, the softmax of its similarities to all patches of its image says where the image resembles it. CFSD
    is the Kullback-Leibler divergence of the content's softmax from the image's, averaged over patches, in nats. Here
    patches are compared by their cosine divided by TEMPERATURE; the published code uses inner products of VGG19's
    features divided by the squared number of channels, and adds up over patches.
    """
    image, content = _patch_similarities(images), _patch_similarities(contents)
    return kl_div(image, content, reduction="none", log_target=True).sum(dim=2).mean(dim=1)


def _standardised(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    variance, mean = torch.var_mean(maps, dim=(2, 3), correction=0, keepdim=True)
    return (maps - mean) / (variance + 1e-5).sqrt()


def _patch_similarities(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p p"]:
    """Return the logarithm of the softmax of each patch's similarities to all patches."""
    patches = normalize(maps.flatten(2).mT, dim=2)
    return (patches @ patches.mT / TEMPERATURE).log_softmax(dim=2)
