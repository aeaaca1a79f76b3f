"""The network in plain PyTorch, one function per equation and one module per part of the paper; runs in float64 too."""

from abpn_fast.reference.adaptive_blend import adaptive_blend
from abpn_fast.reference.attention import LocalAttentiveModule, ProbabilisticContextBlock
from abpn_fast.reference.blending import ConvBlend, PolynomialBlend
from abpn_fast.reference.encoder import MutualEncoder
from abpn_fast.reference.gated_conv import gated_conv
from abpn_fast.reference.laplacian_decompose import laplacian_decompose
from abpn_fast.reference.mask_branch import MaskPredictionBranch
from abpn_fast.reference.model import ABPN, Retouched, default_levels
from abpn_fast.reference.pixels import to_pixels, to_unit
from abpn_fast.reference.pyramid_down import pyramid_down
from abpn_fast.reference.refining import RefiningModule
from abpn_fast.reference.retouching_branch import LocalRetouchingBranch
from abpn_fast.reference.reverse_adaptive_blend import reverse_adaptive_blend
from abpn_fast.reference.upsample import upsample
from abpn_fast.reference.upsample_refine import refine, upsample_refine
from abpn_fast.reference.upsample_refine_blend import keep_below, mask_scale, upsample_refine_blend

__all__ = [
    "ABPN",
    "ConvBlend",
    "LocalAttentiveModule",
    "LocalRetouchingBranch",
    "MaskPredictionBranch",
    "MutualEncoder",
    "PolynomialBlend",
    "ProbabilisticContextBlock",
    "RefiningModule",
    "Retouched",
    "adaptive_blend",
    "default_levels",
    "gated_conv",
    "keep_below",
    "laplacian_decompose",
    "mask_scale",
    "pyramid_down",
    "refine",
    "reverse_adaptive_blend",
    "to_pixels",
    "to_unit",
    "upsample",
    "upsample_refine",
    "upsample_refine_blend",
]
