from __future__ import annotations

import pytest
import torch
from torch import nn

from abpn_fast.reference import (
    LocalAttentiveModule,
    LocalRetouchingBranch,
    MaskPredictionBranch,
    MutualEncoder,
    ProbabilisticContextBlock,
    gated_conv,
    keep_below,
    mask_scale,
)
from tests import formulas
from tests.reference.networks import WIDTHS, config, unsettle


def features(size: int = 64) -> list[torch.Tensor]:
    return MutualEncoder(WIDTHS).eval()(2 * torch.rand(2, 3, size, 2 * size) - 1)


def test_encoder() -> None:
    x = 2 * torch.rand(2, 3, 64, 128) - 1
    found = MutualEncoder(WIDTHS).eval()(x)
    assert found[0] is x
    assert [tuple(f.shape) for f in found[1:]] == [(2, c, 64 >> i, 128 >> i) for i, c in enumerate(WIDTHS, 1)]
    assert all((f >= 0).all() for f in found[1:])


def test_encoder_blocks_have_no_bias() -> None:
    convolutions = [m for m in MutualEncoder(WIDTHS).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 6 and all(c.bias is None and c.stride == (2, 2) for c in convolutions)


def test_mask_branch() -> None:
    mask = MaskPredictionBranch(WIDTHS).eval()(features())
    assert mask.shape == (2, 1, 16, 32)
    assert ((mask > 0) & (mask < 1)).all()


@pytest.mark.parametrize("attention", ["lam", "gated", "pcb"])
def test_retouching_branch(attention: str) -> None:
    branch = LocalRetouchingBranch(config(attention=attention)).eval()
    assert branch(features(), torch.rand(2, 1, 16, 32)).shape == (2, 3, 64, 128)
    assert len(branch.blocks) == 6
    if attention != "pcb":
        last = branch.blocks[-1]
        assert last.negative_slope == 1 and last.feature.bias is not None
        assert not any(isinstance(m, nn.BatchNorm2d) for m in last.modules())
        assert all(block.feature.bias is None and block.gate.bias is not None for block in branch.blocks[:-1])


def folded(conv: nn.Conv2d, norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The filters and biases of ``conv`` followed by ``norm`` in evaluation mode."""
    if not isinstance(norm, nn.BatchNorm2d):
        assert conv.bias is not None
        return conv.weight, conv.bias
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return conv.weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor


@pytest.mark.parametrize("last", [False, True], ids=["inner", "last"])
@pytest.mark.parametrize("keep", [False, True], ids=["gated", "lam"])
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask"])
def test_folded_module_is_gated_conv(masked: bool, keep: bool, last: bool) -> None:
    module = LocalAttentiveModule(5, 4, 3, masked=masked, keep=keep, last=last).double().eval()
    unsettle(module)
    f, skip = torch.randn(2, 5, 4, 3, dtype=torch.float64), torch.randn(2, 4, 8, 6, dtype=torch.float64)
    mask = torch.rand(2, 1, 3, 5, dtype=torch.float64) if masked else None
    weight, bias = folded(module.feature, module.feature_norm)
    weight, bias = torch.cat([weight, module.gate.weight]), torch.cat([bias, module.gate.bias])
    kept = (None, None) if module.skip is None else folded(module.skip, module.skip_norm)
    result = module(f, skip, mask)
    operator = gated_conv(f, skip, mask, weight, bias, *kept, negative_slope=1.0 if last else 0.2)
    assert (result - operator).abs().max() < 1e-13
    arrays = [None if x is None else x.detach().numpy() for x in (f, skip, mask, weight, bias, *kept)]
    exact = formulas.gated_conv(*arrays, slope=1.0 if last else 0.2)
    assert (result - torch.from_numpy(exact)).abs().max() < 1e-13


def test_a_closed_gate_keeps_the_skip() -> None:
    module = LocalAttentiveModule(5, 4, 3, last=True)
    nn.init.constant_(module.gate.bias, -1e4)
    skip = torch.randn(1, 4, 8, 6)
    assert torch.equal(module(torch.randn(1, 5, 4, 3), skip, torch.rand(1, 1, 2, 2)), module.skip(skip))


def test_context_normalisation_gives_the_inside_the_statistics_of_the_outside() -> None:
    block = ProbabilisticContextBlock(5, 4, 3).double()
    nn.init.constant_(block.balance[-2].bias, 1e4)
    x = torch.randn(1, 3, 40, 40, dtype=torch.float64)
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    mask[..., 10:30, 10:30] = 1
    inside, outside = mask[0, 0] == 1, mask[0, 0] == 0
    x[..., inside] = 5 * x[..., inside] + 3
    y = block.normalise(x, mask)
    assert torch.equal(y[..., outside], x[..., outside])
    for statistic in (torch.mean, torch.std):
        difference = statistic(y[..., inside], dim=-1) - statistic(x[..., outside], dim=-1)
        assert difference.abs().max() < 1e-2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 13), (17, 16), (64, 65)], ids=str)
@pytest.mark.parametrize("scale", [1, 2, 4, 8, 32])
def test_mask_scale(scale: int, size: tuple[int, int]) -> None:
    mask_size = tuple(-(-n // scale) for n in size)
    found = mask_scale(size, mask_size)
    assert found is not None and tuple(-(-n // found) for n in size) == mask_size


def test_a_mask_that_fits_by_no_power_of_two() -> None:
    assert [mask_scale((12, 12), size) for size in ((12, 6), (4, 4), (13, 13), (2, 1))] == [None] * 4
    image = torch.rand(1, 3, 12, 12)
    with pytest.raises(ValueError, match=r"mask of \(4, 4\) fits no image of \(12, 12\)"):
        keep_below(image, image, torch.rand(1, 1, 4, 4), 0.5)
