"""The two convolutions as matrix products, for the tensor cores: a row of pixels times the taps.

A row of the input meets three rows of the hidden layer, a hidden row three of the result. The first convolution adds
each input row to three sums as it comes; the second waits for three hidden rows, which are half as large as its sums.
"""

from __future__ import annotations

import triton
import triton.language as tl

from abpn_fast.kernels.refine_inputs import stacked

# Around a pixel of the input, up(B) and then H in 4 channels and 4 columns of which 3 each are used; of the hidden
# layer; of a pair of results, 4 channels of which 3 are used, [channel * 2 + odd].
_TAPS = tl.constexpr(32)
_HIDDEN = tl.constexpr(16)
_PAIR = tl.constexpr(8)


@triton.jit
def load_weights1(weight1, bias1, operand: tl.constexpr, GROUP: tl.constexpr):
    """phi_1: three rows of taps, (32, 16) each, and the bias as the sum that nothing has been added to."""
    k, channel = tl.arange(0, _TAPS)[:, None], tl.arange(0, _HIDDEN)[None, :]
    c, dx = k // 4 % 4, k % 4
    used = (c < 3) & (dx < 3)
    rows = ()
    for dy in tl.static_range(3):
        row = tl.load(weight1 + channel * 54 + (k // 16 * 3 + c) * 9 + dy * 3 + dx, mask=used, other=0)
        rows = rows + (row.to(operand),)
    bias = tl.load(bias1 + tl.arange(0, _HIDDEN)).to(tl.float32)
    return rows, tl.broadcast_to(bias[None, :], (GROUP, _HIDDEN))


@triton.jit
def load_weights2(weight2, operand: tl.constexpr):
    """phi_2: for three rows of taps what a hidden pixel gives to a pair of results, (16, 8) each, [row * 4 + case].

    The cases are the even and the odd pixel to their own pair, the even one to the pair on the left, the odd one to the
    pair on the right.
    """
    k, n = tl.arange(0, _HIDDEN)[:, None], tl.arange(0, _PAIR)[None, :]
    rows = ()
    for dy in tl.static_range(3):
        for case in tl.static_range(4):
            # The tap of the result's even pixel; its odd pixel, one further right, has the tap before.
            tap = (case + 1) % 4 - n % 2
            used = (n // 2 < 3) & (tap >= 0) & (tap < 3)
            row = tl.load(weight2 + n // 2 * 144 + k * 9 + dy * 3 + tap, mask=used, other=0)
            rows = rows + (row.to(operand),)
    return rows


@triton.jit
def convolve1(row, sums, weights, bias, inside, dtype: tl.constexpr):
    """With one more input row, the hidden row before it: its even and odd pixels, (GROUP, 16) in ``dtype``.

    Args:
        row: of the input, (GROUP, 2) for up(B) and H, [channel * 4 + column].
        sums: of the hidden row before it and of its own, even and odd pixels.
        inside: whether the even and the odd pixel of the hidden row exist.

    Returns:
        The hidden row, and ``sums`` for the next row.
    """
    operand: tl.constexpr = weights[0].dtype
    zero = tl.zeros_like(row[0]).to(dtype)
    done, middle, begun = (), (), ()
    for odd in tl.static_range(2):
        leaves = ()
        for k in tl.static_range(_TAPS // 2):
            leaves = leaves + ((row[k + odd].to(dtype) if (k % 4 < 3) & (k < 12) else zero),)
        taps = stacked(leaves, _TAPS // 2, 4).to(operand)
        hidden = tl.dot(taps, weights[2], sums[odd], input_precision="ieee")
        hidden = tl.where(inside[odd][:, None], tl.maximum(hidden, 0.2 * hidden), 0.0)
        done = done + (hidden.to(dtype),)
        middle = middle + (tl.dot(taps, weights[1], sums[2 + odd], input_precision="ieee"),)
        begun = begun + (tl.dot(taps, weights[0], bias, input_precision="ieee"),)
    return done, middle + begun


@triton.jit
def convolve2(hidden, weights, GROUP: tl.constexpr):
    """A row of the result from three hidden rows, [row * 2 + odd].

    Returns:
        What each pair has from its own two hidden pixels, and what these give to the odd pixel of the pair on the left
        and the even pixel of the pair on the right, (GROUP, 8) each.
    """
    operand: tl.constexpr = weights[0].dtype
    own = tl.zeros((GROUP, _PAIR), tl.float32)
    left, right = own, own
    for dy in tl.static_range(3):
        even, odd = hidden[dy * 2].to(operand), hidden[dy * 2 + 1].to(operand)
        own = tl.dot(even, weights[dy * 4], own, input_precision="ieee")
        own = tl.dot(odd, weights[dy * 4 + 1], own, input_precision="ieee")
        left = tl.dot(even, weights[dy * 4 + 2], left, input_precision="ieee")
        right = tl.dot(odd, weights[dy * 4 + 3], right, input_precision="ieee")
    return own, tl.where(tl.arange(0, _PAIR)[None, :] % 2 == 1, left, right)
