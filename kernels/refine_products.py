"""The two convolutions as matrix products, for the tensor cores: 16 pairs of pixels times the taps.

A thread has four pixels of a row in one of its places (``refine_dot``), which are the rows 2i and 2i + 1 of pairs that
tensor cores want it to have: operands and results are put together from what the thread has and stay in its registers.
A matrix of GROUP pairs has the first pair of every four in its upper half, the second in its lower half.

A row of the input meets three rows of the hidden layer, a hidden row three of the result: each adds to three sums as it
comes. No pixel that is not among the taps of another shares a product with it: 0 times infinity would reach too far.
"""

from __future__ import annotations

import triton
import triton.language as tl

_HIDDEN = tl.constexpr(16)
# Of the 16 taps of a product a thread has four: where tl.join made them Triton takes them for neighbours up to version
# 3.7, later for two pairs, eight apart. Taps are numbered so that they are those a thread has.
_TOGETHER = tl.constexpr(tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8))
# A pair of results, 4 channels of which 3 are used, [channel * 2 + odd].
_PAIR = tl.constexpr(8)


@triton.jit
def load_weights1(weight1, bias1, operand: tl.constexpr):
    """phi_1, (16, 16) each, [row of taps * 4 + odd * 2 + part].

    Columns 2g - 1 to 2g + 2 are around a pair. Both its pixels have a product with the columns between, and one with
    the column at their own side and, in the place of another column, a one for the bias.
    """
    k, channel = tl.arange(0, 16)[:, None], tl.arange(0, _HIDDEN)[None, :]
    second, c, high = k // 8, k // 2 % 4, k % 2
    if _TOGETHER:
        second, c = k // 2 % 2, k // 4
    parts = ()
    for dy in tl.static_range(3):
        for odd in tl.static_range(2):
            taps = weight1 + channel * 54 + (high * 3 + c) * 9 + dy * 3
            middle = tl.load(taps + second + (1 - odd), mask=c < 3, other=0)
            side = tl.load(taps + 2 * odd, mask=(c < 3) & (second == 0), other=0)
            if dy == 0:
                side += tl.load(bias1 + channel, mask=(second == 1) & (c == 0) & (high == 0), other=0)
            parts = parts + (middle.to(operand), side.to(operand))
    return parts


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
def convolve1(up, high, sums, weights, dtype: tl.constexpr):
    """With one more input row, the hidden row before it: its even and odd pixels, (GROUP, 16), before the ReLU.

    Args:
        up, high: up(B) and H in six columns around every four pixels.
        sums: of the hidden row before it and of its own, even and odd pixels.

    Returns:
        The hidden row, and ``sums`` for the next row.
    """
    operand: tl.constexpr = weights[0].dtype
    u, h = (), ()
    for i in tl.static_range(6):
        u, h = u + (up[i].to(dtype).to(operand),), h + (high[i].to(dtype).to(operand),)
    one = tl.full(up[0].shape, 1.0, tl.float32).to(operand)
    middle = _operand((u[1], h[1], u[2], h[2]), (u[3], h[3], u[4], h[4]))
    sides = ()
    for odd in tl.static_range(2):
        sides += (_operand((u[odd * 3], h[odd * 3], one, one), (u[odd * 3 + 2], h[odd * 3 + 2], one, one)),)
    sums += (tl.zeros_like(sums[0]),) * 2
    longer = ()
    for row in tl.static_range(3):
        for odd in tl.static_range(2):
            # The row before meets its last taps here, the one after its first.
            taps = weights[(2 - row) * 4 + odd * 2 : (2 - row) * 4 + odd * 2 + 2]
            total = tl.dot(middle, taps[0], sums[row * 2 + odd], input_precision="ieee")
            longer += (tl.dot(sides[odd], taps[1], total, input_precision="ieee"),)
    return longer[:2], longer[2:]


@triton.jit
def convolve2(even, odd, sums, up, weights):
    """With one more hidden row, the row of the result before it: four pixels of a channel, without their bias.

    Args:
        even, odd: pixels of the hidden row, (GROUP, 16).
        sums: of the row before it and of its own: what pairs have from their own hidden pixels, give to the left and to
            the right, (GROUP, 8) each.
        up: up(B) of the row after it, what its sum begins with.

    Returns:
        The row, and ``sums`` for the next one.
    """
    nothing = tl.zeros_like(sums[0])
    sums += (_result(up), nothing, nothing)
    longer = ()
    for row in tl.static_range(3):
        taps = weights[(2 - row) * 4 : (2 - row) * 4 + 4]
        own = tl.dot(even, taps[0], sums[row * 3], input_precision="ieee")
        own = tl.dot(odd, taps[1], own, input_precision="ieee")
        left = tl.dot(even, taps[2], sums[row * 3 + 1], input_precision="ieee")
        right = tl.dot(odd, taps[3], sums[row * 3 + 2], input_precision="ieee")
        longer += (own, left, right)
    own, left, right = _pixels(longer[0]), _pixels(longer[1]), _pixels(longer[2])
    # The threads of the same channel are four apart.
    thread = tl.arange(0, own[0].shape[0])
    before, after = tl.maximum(thread - 4, 0), tl.minimum(thread + 4, own[0].shape[0] - 1)
    done = (
        own[0] + tl.gather(right[2], before, 0),
        own[1] + left[3],
        own[2] + right[0],
        own[3] + tl.gather(left[1], after, 0),
    )
    return done, longer[3:]


@triton.jit
def _operand(first, second):
    """(GROUP, 16) from four values of the first pair and of the second."""
    upper = tl.join(tl.join(first[0], first[2]), tl.join(first[1], first[3]))
    lower = tl.join(tl.join(second[0], second[2]), tl.join(second[1], second[3]))
    # [thread // 4, channel, column, H, pair]
    x = tl.reshape(tl.join(upper, lower), (first[0].shape[0] // 4, 4, 2, 2, 2))
    x = tl.permute(x, (4, 0, 1, 2, 3)) if _TOGETHER else tl.permute(x, (4, 0, 2, 1, 3))
    return tl.reshape(x, (first[0].shape[0] // 2, 16))


@triton.jit
def _result(pixels):
    """(GROUP, 8) from four pixels of a channel."""
    x = tl.join(tl.join(pixels[0], pixels[2]), tl.join(pixels[1], pixels[3]))
    x = tl.reshape(x, (pixels[0].shape[0] // 4, 4, 2, 2))
    return tl.reshape(tl.permute(x, (2, 0, 1, 3)), (pixels[0].shape[0] // 2, 8))


@triton.jit
def _pixels(result):
    """The inverse of ``_result``."""
    x = tl.permute(tl.reshape(result, (2, result.shape[0] // 2, 4, 2)), (1, 2, 0, 3))
    even, odd = tl.split(tl.reshape(x, (result.shape[0] * 2, 2, 2)))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    return a, b, c, d
