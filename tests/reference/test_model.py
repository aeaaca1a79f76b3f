from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from abpn_fast import ABPNConfig, Retouched, default_levels
from abpn_fast.reference import ABPN
from tests import formulas
from tests.accuracy import chosen
from tests.reference.networks import network, photo

OPTIONS: list[dict[str, Any]] = [
    {},
    {"mask_branch": False},
    {"attention": "gated"},
    {"attention": "gated", "mask_branch": False},
    {"attention": "pcb"},
    {"blend": "addition"},
    {"blend": "soft_light"},
    {"blend": "conv"},
    {"blend": "rgb"},
    {"refining": False},
    {"refining_levels": 2},
    {"output": "direct"},
    {"pyramid_filter": "box"},
    {"damping": 0.0},
]


def intermediates(model: ABPN, image: torch.Tensor, levels: int, **options: Any) -> Retouched:
    output = model(image, levels=levels, return_intermediates=True, **options)
    assert isinstance(output, Retouched)
    return output


@pytest.mark.parametrize(
    ("preset", "parameters", "gmac"),
    [("small", 2_946_108, 1.5), ("medium", 4_081_692, 4.3), ("base", 46_975_452, 23)],
)
def test_size_and_cost(preset: str, parameters: int, gmac: float) -> None:
    with torch.device("meta"):
        model = ABPN(preset).eval()
        assert sum(p.numel() for p in model.parameters()) == parameters
        with FlopCounterMode(display=False) as counter:
            model.retouch(torch.rand(1, 3, 256, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_runs_forward_and_backward(options: dict[str, Any], dtype: torch.dtype) -> None:
    model = network(**options).to(dtype)
    image = photo(45, 67, dtype=dtype, count=2)
    output = intermediates(model, image, 2)
    assert output.image.shape == image.shape and output.image.dtype == dtype
    assert torch.isfinite(output.image).all()
    assert (output.image != image).any()
    for pyramid in (output.blend_layers, output.pyramid):
        assert [level.shape[2:] for level in pyramid] == [(45, 67), (23, 34), (12, 17)]
    assert output.low_res.shape == (2, 3, 12, 17)
    if model.config.mask_branch:
        assert output.mask.shape == (2, 1, 3, 5)
    else:
        assert output.mask is None
    output.image.square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    unused = {name for name, grad in gradients.items() if grad is None or not grad.any()}
    assert unused == set()
    assert all(torch.isfinite(grad).all() for grad in gradients.values())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_training_mode(options: dict[str, Any]) -> None:
    model = network(**options).train()
    output = intermediates(model, photo(70, 66, count=2), 0 if options.get("refining") is False else 1)
    output.image.sum().backward()
    assert torch.isfinite(output.image).all()


@pytest.mark.parametrize("filter", ["binomial", "box"])
def test_forward_step_by_step(filter: str) -> None:
    """The blend pyramid of a pass, recomputed from its thumbnail result with the formulas."""
    model = network(pyramid_filter=filter).double()
    image = photo(37, 50, dtype=torch.float64)
    with torch.no_grad():
        model.blend.j.add_(0.1 * torch.randn(3))
        model.blend.k.add_(0.1 * torch.randn(3))
        output = intermediates(model, image, 2, strength=0.7)
    weights = [w.detach().numpy() for w in model.refining[0].weights]
    j, k = model.blend.j.detach().numpy(), model.blend.k.detach().numpy()
    gaussian, _ = formulas.laplacian(image.numpy(), 2, filter)
    blend = formulas.rabm(gaussian[2], output.low_res.numpy(), j, k)
    for level in (1, 0):
        blend = formulas.refine(blend, gaussian[level], gaussian[level + 1], *weights)
        assert np.abs(output.blend_layers[level].numpy() - blend).max() < 1e-11
    assert np.abs(output.image.numpy() - formulas.abm(image.numpy(), blend, j, k, 0.7)).max() < 1e-11
    for found, wanted in zip(output.pyramid, gaussian, strict=True):
        assert np.abs(found.numpy() - wanted).max() < 1e-14


def test_one_refining_module_per_level() -> None:
    model = network(refining_levels=2)
    image = photo(33, 40)
    before = intermediates(model, image, 2)
    with torch.no_grad():
        model.refining[0].conv2.bias.add_(1)
    after = intermediates(model, image, 2)
    assert len(model.refining) == 2
    assert torch.equal(after.blend_layers[1], before.blend_layers[1])
    assert torch.allclose(after.blend_layers[0], before.blend_layers[0] + 1)
    with pytest.raises(ValueError, match="levels must be at most 2"):
        model(image, levels=3)


@pytest.mark.parametrize(("output", "lowest", "highest"), [("residual", -1, 2), ("direct", 0, 1)])
def test_output_mapping(output: str, lowest: float, highest: float) -> None:
    model = network(output=output)
    image = photo(40, 41)
    for bias in (-1e3, 1e3):
        for conv in (model.retouching_branch.blocks[-1].feature, model.retouching_branch.blocks[-1].skip):
            torch.nn.init.constant_(conv.bias, bias)
        low_res = intermediates(model, image, 0).low_res
        wanted = (image if output == "residual" else 0.5) + (1 if output == "residual" else 0.5) * np.sign(bias)
        assert torch.allclose(low_res, torch.as_tensor(wanted, dtype=torch.float32).expand_as(low_res))
        assert low_res.min() >= lowest and low_res.max() <= highest


@pytest.mark.parametrize("levels", [0, 1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 19), (19, 1), (7, 13), (16, 17), (65, 63)], ids=str)
def test_any_size(size: tuple[int, int], levels: int) -> None:
    output = intermediates(network(), photo(*size), levels)
    assert output.image.shape[2:] == size and torch.isfinite(output.image).all()
    thumbnail = tuple(-(-n // 2**levels) for n in size)
    assert output.low_res.shape[2:] == output.pyramid[-1].shape[2:] == thumbnail
    assert output.mask.shape[2:] == tuple(-(-n // 2 ** (levels + 2)) for n in size)
    assert len(output.blend_layers) == len(output.pyramid) == levels + 1


def test_padding_repeats_the_edge() -> None:
    model, image = network(), photo(64, 40)
    padded = torch.cat([image, image[..., -1:].expand(-1, -1, -1, 24)], 3)
    (mask, low_res), (mask_padded, low_res_padded) = model.retouch(image), model.retouch(padded)
    assert torch.equal(low_res, low_res_padded[..., :40])
    assert torch.equal(mask, mask_padded[..., :10])


def test_self_ensemble_is_the_mean_of_four_mirror_images() -> None:
    model, image = network().double(), photo(64, 128, count=1, dtype=torch.float64)
    found = intermediates(model, image, 0, self_ensemble=True)
    back = [[part.flip(axes) for part in model.retouch(image.flip(axes))] for axes in ([], [2], [3], [2, 3])]
    for part, expected in zip((found.mask, found.low_res), zip(*back, strict=True), strict=True):
        torch.testing.assert_close(part, sum(expected) / 4, rtol=0, atol=1e-14)
    assert (found.low_res - model.retouch(image)[1]).abs().max() > 1e-4


@pytest.mark.parametrize("mask_branch", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (65, 66), (20, 190)], ids=str)
def test_self_ensemble_of_any_size(size: tuple[int, int], mask_branch: bool) -> None:
    model, image = network(mask_branch=mask_branch), photo(*size, count=2)
    once, four = (intermediates(model, image, 1, self_ensemble=each) for each in (False, True))
    assert torch.isfinite(four.image).all()
    assert four.low_res.shape == once.low_res.shape
    assert [part.mask is None for part in (once, four)] == [not mask_branch] * 2
    assert not mask_branch or four.mask.shape == once.mask.shape


def test_self_ensemble_sees_a_mirror_image_alike() -> None:
    model, image = network().double(), photo(64, 128, dtype=torch.float64)
    for retouch, alike in ((model.retouch, False), (model.retouch_mirrored, True)):
        for part, mirrored in zip(retouch(image), retouch(image.flip(3)), strict=True):
            assert ((part - mirrored.flip(3)).abs().max() < 1e-12) == alike


def test_the_encoder_sees_the_thumbnail_from_minus_one_to_one() -> None:
    model, seen = network(), []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = photo(64, 64)
    model(image, levels=0)
    assert torch.equal(seen[0], 2 * image - 1) and seen[0].min() == -1 and seen[0].max() == 1


def test_batch_is_images_apart() -> None:
    model, images = network().double(), photo(20, 33, count=3, dtype=torch.float64)
    together = model(images, levels=1)
    assert (together - torch.cat([model(image[None], levels=1) for image in images])).abs().max() < 1e-12
    assert model(images[:0], levels=1).shape == (0, 3, 20, 33)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    model = network()
    exact = model.double()(photo_of(torch.float64), levels=1)
    result = model.to(dtype)(photo_of(dtype), levels=1)
    assert result.dtype == dtype
    assert (result.double() - exact).abs().max() < 100 * torch.finfo(dtype).eps


def photo_of(dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(1)
    # Away from black, where Eq. 4 is ill-conditioned in half precision.
    return (0.2 + 0.6 * torch.rand(1, 3, 30, 33)).bfloat16().half().to(dtype)


@pytest.mark.parametrize(("dtype", "stored"), [(torch.uint8, np.uint8), (torch.uint16, np.uint16)])
def test_integers_in_integers_out(dtype: torch.dtype, stored: type[np.unsignedinteger]) -> None:
    model, image = network(), photo(30, 33, dtype=dtype)
    result = model(image, levels=1)
    plain = model(image.float() / torch.iinfo(dtype).max, levels=1).detach().numpy()
    assert torch.equal(result, torch.from_numpy(formulas.store(plain, stored)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.uint16])
def test_strength_zero_gives_the_image(dtype: torch.dtype) -> None:
    model = network()
    image = photo(31, 33, dtype=dtype)
    model = model.to(dtype) if dtype.is_floating_point else model
    assert torch.equal(model(image, levels=1, strength=0), image)
    assert not torch.equal(model(image, levels=1), image)


@pytest.mark.parametrize("blend", ["adaptive", "conv"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.uint16])
def test_mask_threshold_keeps_bits(dtype: torch.dtype, blend: str) -> None:
    model, image = network(blend=blend), photo(50, 61, dtype=dtype, count=2)
    free = intermediates(model, image, 1)
    threshold = free.mask.median().item()
    result = model(image, levels=1, mask_threshold=threshold)
    below = formulas.up(free.mask.detach().numpy(), (50, 61), scale=8) < threshold
    below = torch.from_numpy(below).expand(-1, 3, -1, -1)
    assert below.any() and not below.all()
    assert torch.equal(result, chosen(below, image, free.image))


def test_default_levels() -> None:
    """Table 3, and sizes that no power of two gives."""
    assert [default_levels(n, n) for n in (512, 1024, 2048, 4096)] == [1, 2, 3, 4]
    others = {(1, 1): 1, (256, 256): 1, (300, 1024): 2, (4052, 3456): 4, (8192, 10): 5}
    assert {size: default_levels(*size) for size in others} == others
    seen = intermediates(network(), photo(10, 600), None)
    assert len(seen.pyramid) == default_levels(10, 600) + 1


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"image": "photo.jpg"}, "image must be a tensor"),
        ({}, {"image": torch.rand(3, 8, 8)}, "image must have shape"),
        ({}, {"image": torch.rand(1, 4, 8, 8)}, "image must have shape"),
        ({}, {"image": torch.rand(1, 3, 0, 8)}, "image must have shape"),
        ({}, {"image": torch.rand(1, 3, 8, 8).double()}, "image must be uint8, uint16 or torch.float32"),
        ({}, {"levels": -1}, "levels must be"),
        ({}, {"levels": 1.0}, "levels must be"),
        ({}, {"strength": "strong"}, "strength must be"),
        ({}, {"mask_threshold": "low"}, "mask_threshold must be"),
        ({"blend": "conv"}, {"strength": 0.5}, "strength must be 1"),
        ({"blend": "rgb"}, {"strength": 0.5}, "strength must be 1"),
        ({"mask_branch": False}, {"mask_threshold": 0.5}, "mask_threshold needs"),
    ],
)
def test_bad_arguments(options: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        network(**options)(**{"image": torch.rand(1, 3, 8, 8), **arguments})


def test_same_parameters_for_any_number_of_levels() -> None:
    model = ABPN(ABPNConfig.preset("small"))
    assert len(model.refining) == 1
    assert len(ABPN(ABPNConfig.preset("small", refining=False)).refining) == 0
    assert sum(p.numel() for p in model.refining.parameters()) == 6 * 16 * 9 + 16 + 16 * 3 * 9 + 3
