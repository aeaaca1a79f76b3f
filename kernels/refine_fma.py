"""The two convolutions in float32 multiply-adds, one thread per quad."""

from __future__ import annotations

import triton
import triton.language as tl

from abpn_fast.kernels.refine_inputs import stacked


@triton.jit
def convolve(window, sums, weight1, bias1, weight2, inside):
    """Hidden rows 2s - 1 and 2s, and what they add to four rows of the result.

    Args:
        window: rows 2s - 2 to 2s + 1 of the input, [row * 24 + channel * 4 + column].
        sums: rows 2s - 2 to 2s + 1 of the result, columns 2g - 1 to 2g + 2, [(row * 4 + column) * 3 + channel].
        inside: which of the hidden pixels exist, [row * 2 + column].
    """
    channel = 0
    while channel < 16:
        bias = tl.zeros_like(window[0]) + tl.load(bias1 + channel)
        totals = (bias, bias, bias, bias)
        for i in tl.static_range(54):
            tap = tl.load(weight1 + channel * 54 + i)
            longer = ()
            for pixel in tl.static_range(4):
                value = window[(pixel // 2 + i % 9 // 3) * 24 + i // 9 * 4 + pixel % 2 + i % 3]
                longer = longer + (tl.fma(value, tap, totals[pixel]),)
            totals = longer
        hidden = ()
        for pixel in tl.static_range(4):
            hidden = hidden + (tl.where(inside[pixel], tl.maximum(totals[pixel], 0.2 * totals[pixel]), 0.0),)
        taps = ()
        for i in tl.static_range(27):
            taps = taps + (tl.load(weight2 + channel * 9 + (i // 9 * 144 + i % 9)),)
        spread = ()
        for i in tl.static_range(48):
            total = sums[i]
            for pixel in tl.static_range(4):
                # Hidden pixel (y, x) reaches rows y to y + 2 and columns x to x + 2, the furthest with the first tap.
                if (
                    (i // 12 >= pixel // 2)
                    & (i // 12 <= pixel // 2 + 2)
                    & (i // 3 % 4 >= pixel % 2)
                    & (i // 3 % 4 <= pixel % 2 + 2)
                ):
                    tap = taps[i % 3 * 9 + (2 + pixel // 2 - i // 12) * 3 + (2 + pixel % 2 - i // 3 % 4)]
                    total = tl.fma(hidden[pixel], tap, total)
            spread = spread + (total,)
        sums = spread
        channel += 1
    return sums


@triton.jit
def pairs(row):
    """Of a row of sums, [column * 3 + channel], what ``refine_dot.convolve2`` returns."""
    own, given = (), ()
    for n in tl.static_range(8):
        own = own + (row[(1 + n % 2) * 3 + n // 2 % 3],)
        given = given + (row[(3 - n % 2 * 3) * 3 + n // 2 % 3],)
    return stacked(own, 8, 3), stacked(given, 8, 3)
