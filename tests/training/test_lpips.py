from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from abpn_fast.training import features, lpips
from abpn_fast.training.features import Features, Name, cached, load_weights
from abpn_fast.training.lpips import LPIPS

NETWORKS = {"alexnet": ("alex", features.alexnet), "vgg16": ("vgg", features.vgg16)}


def fetched(name: Name) -> LPIPS:
    if not cached(name).is_file():
        pytest.skip(f"{name} has not been fetched (abpn-fast fetch-vgg)")
    return LPIPS.pretrained(name)


def torchmetrics_heads(name: str) -> dict[str, torch.Tensor]:
    module = pytest.importorskip("torchmetrics.functional.image.lpips")
    path = Path(module.__file__).parent / "lpips_models" / f"{NETWORKS[name][0]}.pth"
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_against_torchmetrics_on_the_same_features(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("torchmetrics.functional.image.lpips")
    torch.manual_seed(0)
    short, make = NETWORKS[name]
    network = make()
    monkeypatch.setattr(module, "_get_tv_model_features", lambda net, pretrained: network.features)
    theirs = module._NoTrainLpips(net=short)
    own = LPIPS(network, [torchmetrics_heads(name)[f"lin{index}.model.1.weight"] for index in range(5)])
    a, b = torch.rand(3, 3, 70, 65), torch.rand(3, 3, 70, 65)
    wanted = theirs(a, b, normalize=True).flatten()
    assert own(a, b).tolist() == pytest.approx(wanted.tolist(), rel=1e-4)
    assert own(a, a).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_picture(name: str) -> None:
    network = NETWORKS[name][1]()
    heads = [torch.ones(1, layer, 1, 1) for layer in [x.shape[1] for x in network(torch.rand(1, 3, 31, 31))]]
    assert LPIPS(network, heads)(torch.rand(1, 3, 31, 31), torch.rand(1, 3, 31, 31)).item() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_fetched_heads_are_those_of_torchmetrics(name: Name) -> None:
    fetched(name)
    weights, theirs = load_weights(name), torchmetrics_heads(name)
    for index in range(5):
        assert torch.equal(weights[f"lpips.{index}"], theirs[f"lin{index}.model.1.weight"])


@pytest.mark.parametrize(("published", "scaled"), [(0.3493, True), (0.3566, False)])
def test_vgg_against_published_values(published: float, scaled: bool) -> None:
    """Printed in the documentation of older torchmetrics, for pictures in [-1, 1] and for [0, 1] taken as they are."""
    distance = fetched("vgg16")
    torch.manual_seed(123)
    # There the seed is set before the network is made, which draws as many numbers as these do.
    features.vgg16()
    for widths in ((25088, 4096), (4096, 4096), (4096, 1000)):
        nn.Linear(*widths)
    for width in (64, 128, 256, 512, 512):
        nn.Conv2d(width, 1, 1, bias=False)
    a, b = torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)
    pictures = (a, b) if scaled else ((a + 1) / 2, (b + 1) / 2)
    assert distance(*pictures).mean().item() == pytest.approx(published, abs=6e-5)


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABPN_FAST_CACHE", str(tmp_path))
    network = Features([[nn.Conv2d(3, 2, 1), nn.ReLU()] for _ in range(1)])
    monkeypatch.setattr(features, "alexnet", lambda: network)
    save_file(dict(network.state_dict()), cached("alexnet"))
    found, reasons = lpips.available()
    assert found == {}
    assert "alexnet.safetensors has no LPIPS heads; run abpn-fast fetch-vgg without --torchvision" in reasons[0]
    assert "no vgg16 weights" in reasons[1]
