"""Eq. 3 and Eq. 4 of one pixel, and their gradients."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_coefficients(pointer):
    """j or k, three contiguous float32."""
    return tl.load(pointer), tl.load(pointer + 1), tl.load(pointer + 2)


@triton.jit
def polynomial(image, coefficients):
    """``sum_i c_i I^i``, in the order of the reference."""
    return coefficients[0] + image * (coefficients[1] + image * coefficients[2])


@triton.jit
def _slope(image, coefficients):
    return coefficients[1] + image * (2 * coefficients[2])


@triton.jit
def blended(image, blend, j, k):
    """R from I and the blend layer times its strength (Eq. 3)."""
    return polynomial(image, j) * blend + polynomial(image, k)


@triton.jit
def blended_gradient(grad, image, blend, j, k):
    """What ``grad`` of R makes of I, of the scaled B, and of the values of the two polynomials."""
    along_j = grad * blend
    return along_j * _slope(image, j) + grad * _slope(image, k), grad * polynomial(image, j), along_j, grad


@triton.jit
def unblended(image, retouched, j, k, damping, UNDAMPED: tl.constexpr):
    """B from I and R (Eq. 4); ``damping`` counts unless UNDAMPED."""
    d = polynomial(image, j)
    difference = retouched - polynomial(image, k)
    if UNDAMPED:
        blend = tl.where(d == 0, 0.0, tl.div_rn(difference, tl.where(d == 0, 1.0, d)))
    else:
        blend = tl.div_rn(difference * d, d * d + damping)
    return blend


@triton.jit
def unblended_gradient(grad, image, retouched, j, k, damping, UNDAMPED: tl.constexpr):
    """What ``grad`` of B makes of I, of R, and of the values of the two polynomials."""
    d = polynomial(image, j)
    difference = retouched - polynomial(image, k)
    if UNDAMPED:
        inverse = tl.where(d == 0, 0.0, tl.div_rn(grad, tl.where(d == 0, 1.0, d)))
        along_j = -inverse * tl.div_rn(difference, tl.where(d == 0, 1.0, d))
    else:
        divisor = d * d + damping
        inverse = tl.div_rn(grad * d, divisor)
        along_j = tl.div_rn(tl.div_rn(grad * difference, divisor) * (damping - d * d), divisor)
    return along_j * _slope(image, j) - inverse * _slope(image, k), inverse, along_j, -inverse
