"""The operators: what ABPN does to an image at full size, each with a gradient and one implementation per backend."""

from abpn_fast.ops.adaptive_blend import adaptive_blend
from abpn_fast.ops.gated_conv import gated_conv
from abpn_fast.ops.laplacian_decompose import laplacian_decompose
from abpn_fast.ops.pyramid_down import pyramid_down
from abpn_fast.ops.reverse_adaptive_blend import reverse_adaptive_blend
from abpn_fast.ops.upsample_refine import upsample_refine
from abpn_fast.ops.upsample_refine_blend import upsample_refine_blend

__all__ = [
    "adaptive_blend",
    "gated_conv",
    "laplacian_decompose",
    "pyramid_down",
    "reverse_adaptive_blend",
    "upsample_refine",
    "upsample_refine_blend",
]
