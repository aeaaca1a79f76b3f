from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from abpn_fast.reference import ABPN, Retouched
from abpn_fast.training.adversarial import Adversary
from abpn_fast.training.features import Features
from abpn_fast.training.losses import (
    HINGE,
    LEAST_SQUARES,
    Perceptual,
    changed_region,
    decibels,
    dice,
    largest_change,
    mask_target,
    multi_scale,
    retouched_pyramid,
    target_pyramid,
    total_variation,
)
from abpn_fast.training.metrics import psnr
from abpn_fast.training.objective import Objective, _cross_entropy
from tests import formulas
from tests.reference.networks import config, photo

LEVELS = 2


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    image = photo(37, 50, count=2, dtype=torch.float64)
    target = image.clone()
    target[..., 8:20, 10:30] = (target[..., 8:20, 10:30] + 0.1 * torch.rand(2, 3, 12, 20)).clamp(0, 1)
    return image, target


def output_of(image: torch.Tensor) -> tuple[ABPN, Retouched]:
    model = ABPN(config()).double().eval()
    output = model(image, levels=LEVELS, return_intermediates=True)
    assert isinstance(output, Retouched)
    return model, output


def test_changed_region() -> None:
    image = torch.full((1, 3, 2, 4), 0.5)
    target = image.clone()
    target[0, 0, 0, 0] += 0.03
    target[0, 2, 1, 1] -= 0.03
    target[0, 1, 0, 3] += 0.019
    region = changed_region(image, target)
    assert region.dtype == torch.float32
    assert region.tolist() == [[[[1, 0, 0, 0], [0, 1, 0, 0]]]]
    assert changed_region(image, target, 0.01).sum() == 3


@pytest.mark.parametrize("filter", ["binomial", "box"])
def test_target_pyramid(filter: str) -> None:
    _, target = pair()
    exact = formulas.laplacian(target.numpy(), 3, filter)[0]
    for found, wanted in zip(target_pyramid(target, 3, filter=filter), exact, strict=True):
        assert np.abs(found.numpy() - wanted).max() < 1e-14


def test_retouched_pyramid() -> None:
    image, _ = pair()
    model, output = output_of(image)
    found = retouched_pyramid(output.pyramid, output.blend_layers, output.low_res, model.blend)
    assert found[-1] is output.low_res and len(found) == LEVELS + 1
    assert torch.equal(found[0], output.image)
    i, b, j, k = (x.detach().numpy() for x in (output.pyramid[1], output.blend_layers[1], model.blend.j, model.blend.k))
    assert np.abs(found[1].detach().numpy() - formulas.abm(i, b, j, k)).max() < 1e-14


@pytest.mark.parametrize("power", [1, 2])
def test_multi_scale(power: int) -> None:
    levels = [torch.rand(2, 3, n, n + 1) for n in (8, 4, 2)]
    targets, weights = [torch.rand_like(x) for x in levels], [1 + torch.rand(2, 1, *x.shape[2:]) for x in levels]
    wanted = sum(
        np.mean(w.numpy() * np.abs(x.numpy() - t.numpy()) ** power)
        for x, t, w in zip(levels, targets, weights, strict=True)
    )
    assert multi_scale(levels, targets, weights, power).item() == pytest.approx(wanted, rel=1e-5)


def test_dice() -> None:
    mask, truth = torch.rand(2, 1, 30, 30), torch.zeros(2, 1, 30, 30)
    truth[:, :, :12] = 1
    m, t = mask.double().numpy(), truth.double().numpy()
    plain = 1 - 2 * (m * t).sum() / ((m**2).sum() + (t**2).sum())
    # The 1 that keeps an empty pair from 0 / 0 hardly counts here.
    assert dice(mask, truth).item() == pytest.approx(plain, abs=2e-3)
    assert dice(truth, truth).item() == pytest.approx(0, abs=1e-6)
    assert dice(1 - truth, truth).item() > 0.99
    assert dice(0 * truth, 0 * truth).item() == 0


def test_weighted_dice() -> None:
    mask, truth, weight = torch.rand(3, 2, 1, 9, 9).double()
    truth = truth.round()
    m, t, w = mask.numpy(), truth.numpy(), weight.numpy()
    wanted = 1 - (2 * (w * m * t).sum() + 1) / ((w * m**2).sum() + (w * t).sum() + 1)
    assert dice(mask, truth, weight).item() == pytest.approx(wanted)
    assert dice(mask, truth, torch.ones_like(mask)) == dice(mask, truth)


def test_decibels() -> None:
    """A tenth of PSNR, negated; the second picture has no region, and counts nothing."""
    levels = [torch.rand(2, 3, n, n + 1, dtype=torch.float64) for n in (8, 4)]
    targets = [torch.rand_like(x) for x in levels]
    regions = [(torch.rand_like(x[:, :1]) > 0.5).double() for x in levels]
    for region in regions:
        region[1] = 0
    pairs = zip(levels, targets, regions, strict=True)
    wanted = [psnr(result[:1], target[:1], region[:1]) / -10 / 2 for result, target, region in pairs]
    assert decibels(levels, targets, regions, 1e-12).item() == pytest.approx(np.mean(wanted))
    floor = decibels(targets, targets, [torch.ones_like(region) for region in regions], 1e-4)
    assert floor.item() == pytest.approx(-4)


def test_decibels_of_nothing_have_no_gradient() -> None:
    result = torch.rand(1, 3, 4, 4, requires_grad=True)
    decibels([result], [torch.zeros(1, 3, 4, 4)], [torch.zeros(1, 1, 4, 4)], 1e-4).backward()
    assert result.grad is not None and not result.grad.any()


def test_total_variation() -> None:
    layers = [torch.randn(2, 3, 7, 9, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)]
    wanted = 0.0
    for layer in layers:
        x = layer.numpy()
        wanted += np.abs(x[:, :, 1:] - x[:, :, :-1]).mean() + np.abs(x[..., 1:] - x[..., :-1]).mean()
    assert total_variation(layers).item() == pytest.approx(wanted, rel=1e-12)
    assert total_variation([torch.full((1, 3, 4, 4), 2.0)]).item() == 0


def test_objective() -> None:
    image, target = pair()
    model, output = output_of(image)
    objective = Objective(mse=1, absolute=2, dice=3, cross_entropy=4, total_variation=5, region=7)
    terms = objective.terms(output, target, model.blend, "binomial")
    targets = formulas.laplacian(target.numpy(), LEVELS)[0]
    results = retouched_pyramid(output.pyramid, output.blend_layers, output.low_res, model.blend)
    errors = [np.abs(r.detach().numpy() - t) for r, t in zip(results, targets, strict=True)]
    changed = [np.abs(i.numpy() - t).max(1, keepdims=True) > 0.02 for i, t in zip(output.pyramid, targets, strict=True)]
    assert terms["mse"].item() == pytest.approx(sum((e**2).mean() for e in errors))
    assert terms["absolute"].item() == pytest.approx(
        sum((np.where(c, 7, 1) * e).mean() for e, c in zip(errors, changed, strict=True))
    )
    assert terms["total_variation"].item() == pytest.approx(total_variation(output.blend_layers).item())
    assert 0 < terms["dice"].item() < 1 and terms["cross_entropy"].item() > 0
    weights = {"mse": 1, "absolute": 2, "dice": 3, "cross_entropy": 4, "total_variation": 5}
    assert objective.total(terms).item() == pytest.approx(sum(w * terms[name].item() for name, w in weights.items()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_of_a_saturated_mask(dtype: torch.dtype) -> None:
    """Torch's but for probabilities of 0 and 1, whose loss is that of the next number."""
    mask = torch.tensor([0.2, 0.7, 1.0, 1.0], dtype=dtype)
    truth, weight = torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.tensor([1.0, 2.0, 1.0, 0.0])
    wanted = torch.nn.functional.binary_cross_entropy(mask.float(), truth, weight=weight)
    assert _cross_entropy(mask, truth, weight).item() == pytest.approx(wanted.item(), abs=torch.finfo(dtype).eps / 2)
    wrong = _cross_entropy(mask[3:], truth[3:], torch.ones(1)).item()
    assert wrong == pytest.approx(-np.log(torch.finfo(dtype).eps / 2), rel=1e-3)
    assert _cross_entropy(mask * float("nan"), truth, weight).isnan()


def test_total_variation_of_one_pixel_is_nothing() -> None:
    assert total_variation([torch.rand(1, 3, 1, 1)]) == 0
    layer = torch.rand(1, 3, 1, 9)
    assert total_variation([layer]) == layer.diff(dim=-1).abs().mean()


def test_objective_without_a_mask_branch() -> None:
    image, target = pair()
    model, output = output_of(image)
    terms = Objective().terms(output._replace(mask=None), target, model.blend, "binomial")
    assert set(terms) == {"mse", "absolute", "total_variation"}


def test_the_mask_is_drawn_to_the_changed_region() -> None:
    image, target = pair()
    model, output = output_of(image)
    output.mask.retain_grad()
    terms = Objective().terms(output, target, model.blend, "binomial")
    (terms["dice"] + terms["cross_entropy"]).backward(retain_graph=True)
    gradient = output.mask.grad
    assert (gradient[..., 1, 1] < 0).all() and (gradient[..., -1, -1] > 0).all()


def test_mask_target() -> None:
    region = torch.zeros(1, 1, 8, 12)
    region[0, 0, 3, 4] = 1
    assert mask_target(region, torch.zeros(1, 1, 2, 3)).tolist() == [[[[0, 1, 0], [0, 0, 0]]]]


def test_largest_change() -> None:
    image, target = torch.zeros(1, 3, 8, 12), torch.zeros(1, 3, 8, 12)
    target[0, 2, 3, 4], target[0, 0, 0, 5] = -0.5, 0.25
    assert largest_change(image, target, torch.zeros(1, 1, 2, 3)).tolist() == [[[[0, 0.5, 0], [0, 0, 0]]]]


def test_the_objective_of_psnr() -> None:
    image, target = pair()
    model, output = output_of(image)
    objective = Objective.psnr()
    terms = objective.terms(output, target, model.blend, "binomial")
    assert set(terms) == {"inside", "outside", "dice", "cross_entropy", "total_variation"}
    targets = target_pyramid(target, LEVELS)
    results = retouched_pyramid(output.pyramid, output.blend_layers, output.low_res, model.blend)
    regions = [changed_region(i, t) for i, t in zip(output.pyramid, targets, strict=True)]
    assert terms["inside"] == decibels(results, targets, regions, 1e-4)
    assert terms["outside"] == decibels(results, targets, [1 - region for region in regions], 2e-6)
    change = largest_change(output.pyramid[-1], targets[-1], output.mask)
    weight = torch.where(change > 0.02, (8 * change).clamp(0.1, 6), 1.0)
    truth = mask_target(regions[-1], output.mask)
    assert terms["dice"] == dice(output.mask, truth, weight)
    assert terms["cross_entropy"] == _cross_entropy(output.mask, truth, weight)
    weights = {"inside": 1, "outside": 0.16, "dice": 0.3, "cross_entropy": 0.3, "total_variation": 0.01}
    assert objective.total(terms).item() == pytest.approx(sum(w * terms[name].item() for name, w in weights.items()))


def test_hinge() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.25])
    assert HINGE.discriminator(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.25) / 2)
    assert HINGE.generator(fake).item() == pytest.approx(2.75 / 2)


def test_least_squares() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.25])
    assert LEAST_SQUARES.discriminator(real, fake).item() == pytest.approx(((1 + 0.25) / 2 + (9 + 0.0625) / 2) / 2)
    assert LEAST_SQUARES.generator(fake).item() == pytest.approx((16 + 0.5625) / 2 / 2)


def features() -> Features:
    """Three blocks of 1x1 convolutions, easily written out."""
    torch.manual_seed(0)
    widths = (3, 4, 5, 6)
    blocks = [[torch.nn.Conv2d(a, b, 1), torch.nn.ReLU()] for a, b in itertools.pairwise(widths)]
    return Features(blocks).double()


def test_perceptual() -> None:
    network = features()
    result, target = (torch.rand(2, 3, 5, 7, dtype=torch.float64) for _ in range(2))
    wanted, found = 0.0, []
    for image in (result, target):
        x = (image.numpy() - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape(
            [0.229, 0.224, 0.225], (3, 1, 1)
        )
        outputs = []
        for conv in network.features[::2]:
            weight, bias = conv.weight.numpy()[..., 0, 0], conv.bias.numpy()
            x = np.maximum(np.einsum("oc,nchw->nohw", weight, x) + bias[:, None, None], 0)
            outputs.append(x)
        found.append(outputs)
    wanted = sum(np.mean((found[0][layer] - found[1][layer]) ** 2) for layer in (1, 2))
    loss = Perceptual(network).double()
    assert loss(result, target).item() == pytest.approx(wanted, rel=1e-6)
    assert loss(target, target).item() == 0
    only = Perceptual(network, layers=(0,)).double()
    assert only(result, target).item() == pytest.approx(np.mean((found[0][0] - found[1][0]) ** 2), rel=1e-6)


def test_perceptual_trains_the_picture_alone() -> None:
    loss = Perceptual(features()).double()
    result, target = (torch.rand(1, 3, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss(result, target).backward()
    assert torch.isfinite(result.grad).all() and result.grad.abs().sum() > 0
    assert target.grad is None
    assert all(parameter.grad is None for parameter in loss.parameters())


def paper() -> Objective:
    return Objective.paper(Perceptual(features()).double())


def test_the_papers_weights() -> None:
    objective = paper()
    weights = {"mse": 1, "perceptual": 0.1, "adversarial": 0.1, "dice": 1, "total_variation": 0.1}
    image, target = pair()
    model, output = output_of(image)
    adversary = Adversary(width=4).double()
    terms = objective.terms(output, target, model.blend, "binomial", adversary)
    assert set(terms) == set(weights)
    assert objective.total(terms).item() == pytest.approx(sum(w * terms[name].item() for name, w in weights.items()))
    low = target_pyramid(target, LEVELS)[-1]
    assert terms["perceptual"].item() == pytest.approx(objective.features(output.low_res, low).item())
    # Without an adversary the rest stays.
    assert set(objective.terms(output, target, model.blend, "binomial")) == set(weights) - {"adversarial"}


def test_every_term_reaches_the_model_with_finite_gradients() -> None:
    image, target = pair()
    adversary = Adversary(width=4).double()
    for name in ("mse", "perceptual", "adversarial", "dice", "total_variation"):
        model, output = output_of(image)
        paper().terms(output, target, model.blend, "binomial", adversary)[name].backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients), name
        assert sum(gradient.abs().sum() for gradient in gradients) > 0, name


@pytest.mark.parametrize("blend", ["adaptive", "addition", "soft_light", "rgb", "conv"])
def test_every_blend_can_be_trained(blend: str) -> None:
    image, target = pair()
    model = ABPN(config(blend=blend)).double()
    output = model(image, levels=LEVELS, return_intermediates=True)
    objective = Objective()
    objective.total(objective.terms(output, target, model.blend, "binomial")).backward()
    assert torch.isfinite(model.encoder.blocks[0][0].weight.grad).all()


def test_perceptual_needs_features() -> None:
    with pytest.raises(ValueError, match="perceptual needs features"):
        Objective(perceptual=0.1)
