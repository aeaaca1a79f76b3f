from __future__ import annotations

import pytest
import torch
from torch import Tensor

from abpn_fast.backends.packed_filters import pack, pack_directly, unpack, without_phases
from tests.ops.contract import draw


def filters(gates: int, kept: bool, inputs: int, width: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    weight, bias = draw((1 + gates) * width, inputs, 3, 3), draw((1 + gates) * width)
    return weight, bias, draw(width, 3, 3, 3) if kept else None, draw(width) if kept else None


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("channels", [0, 5])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("gates", "kept"), [(0, False), (1, False), (1, True)])
def test_unpacked_filters_are_those_that_were_packed(
    gates: int, kept: bool, masked: bool, channels: int, bf16: bool
) -> None:
    width, skip = 6, 3
    given = filters(gates, kept, channels + skip + masked, width)
    found = unpack(pack(given, gates, channels, skip, bf16))
    for wanted, tensor, groups in zip(given, found, (1 + gates, 1 + gates, 1, 1), strict=True):
        assert (wanted is None) == (tensor is None)
        if wanted is not None:
            assert tensor is not None
            # Filled up to whole blocks of channels.
            parts = [group[:width] for group in tensor.chunk(groups)]
            # A tap is a sum of products' filters, each rounded.
            rounded = 4 * torch.finfo(torch.bfloat16).eps if bf16 else 1e-6
            torch.testing.assert_close(torch.cat(parts), wanted, rtol=0, atol=rounded)


def test_coarse_filters_are_sums_of_taps() -> None:
    weight, bias, *_ = filters(0, False, 2 + 3, 8)
    direct = pack_directly((weight, bias, None, None), 0, 2, 3, even=True)
    assert direct.features is not None
    first = direct.features.view(4, 4, 2, 1, 8)
    # Phase (0, 1): the row above has the first row of taps; the left column the first two.
    torch.testing.assert_close(first[1, 0, 1, 0], weight[:, 1, 0, :2].sum(1))
    torch.testing.assert_close(first[1, 3, 1, 0], weight[:, 1, 1:, 2].sum(1))


def test_channels_are_filled_up() -> None:
    weight, bias, *_ = filters(1, False, 3, 5)
    packed = pack((weight, bias, None, None), 1, 0, 3, bf16=False)
    assert packed.features is None and packed.skip.shape == (2, 16, 3, 2, 4) and packed.bias.shape == (2, 1, 1, 2, 4)
    assert not packed.skip[1, ..., 1:].any() and packed.skip[1, ..., 0].all()


def test_pairs_lie_side_by_side() -> None:
    weight, bias, *_ = filters(1, False, 3, 5)
    plain, pairs = (pack((weight, bias, None, None), 1, 0, 3, bf16).skip for bf16 in (False, True))
    assert pairs.dtype == torch.bfloat16 and pairs.is_contiguous() and pairs.shape == (2, 16, 2, 2, 4, 2)
    assert torch.equal(pairs[:, :, 0, ..., 0], plain[:, :, 0].bfloat16())
    assert torch.equal(pairs[:, :, 0, ..., 1], plain[:, :, 1].bfloat16())
    assert torch.equal(pairs[:, :, 1, ..., 0], plain[:, :, 2].bfloat16()) and not pairs[:, :, 1, ..., 1].any()


@pytest.mark.parametrize("gates", [0, 1])
def test_without_phases(gates: int) -> None:
    given = filters(gates, False, 2 + 3, 6)
    phased, plain = (pack_directly(given, gates, 2, 3, even) for even in (True, False))
    found = without_phases(phased).features
    assert found is not None and plain.features is not None
    torch.testing.assert_close(found, plain.features, rtol=0, atol=1e-6)
