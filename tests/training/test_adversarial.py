from __future__ import annotations

import pytest
import torch

from abpn_fast.training.adversarial import Adversary, PatchDiscriminator


@pytest.mark.parametrize(("size", "scores"), [((24, 24), (1, 1)), ((64, 81), (6, 8)), ((256, 256), (30, 30))], ids=str)
def test_one_score_per_patch(size: tuple[int, int], scores: tuple[int, int]) -> None:
    assert PatchDiscriminator(4)(torch.rand(2, 3, *size)).shape == (2, 1, *scores)


def test_a_score_sees_70_pixels() -> None:
    image = torch.rand(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    discriminator = PatchDiscriminator(4).double().eval()
    discriminator(image)[0, 0, 9, 9].backward()
    seen = image.grad.abs().sum((0, 1)) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    assert rows.max() - rows.min() + 1 == 70 and columns.max() - columns.min() + 1 == 70


def test_mid_grey_is_zero_to_it() -> None:
    discriminator = PatchDiscriminator(4).eval()
    grey = discriminator(torch.full((1, 3, 32, 32), 0.5))
    assert torch.equal(grey, discriminator.layers(torch.zeros(1, 3, 32, 32)))
    black = discriminator(torch.zeros(1, 3, 32, 32))
    assert torch.equal(black, discriminator.layers(torch.full((1, 3, 32, 32), -1.0)))


def test_spectral_norm() -> None:
    discriminator = PatchDiscriminator(4)
    for _ in range(30):
        discriminator(torch.rand(1, 3, 32, 32))
    for layer in discriminator.layers[::2]:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("loss", ["hinge", "least_squares"])
def test_each_side_trains_its_own_network(loss: str) -> None:
    adversary = Adversary(loss, 4)
    real, fake = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32, requires_grad=True)
    adversary.generator_loss(fake).backward()
    assert torch.isfinite(fake.grad).all() and fake.grad.abs().sum() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in adversary.parameters())
    fake.grad = None
    adversary.discriminator_loss(real, fake).backward()
    assert real.grad is None and fake.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in adversary.parameters() if parameter.dim() > 1)


@pytest.mark.parametrize("loss", ["hinge", "least_squares"])
def test_the_game(loss: str) -> None:
    """The discriminator learns to tell dark from bright; then bright is what the generator is drawn to."""
    torch.manual_seed(0)
    adversary = Adversary(loss, 4)
    optimiser = adversary.optimiser(5e-3)
    real, fake = 0.6 + 0.3 * torch.rand(4, 3, 32, 32), 0.1 + 0.3 * torch.rand(4, 3, 32, 32)
    before = adversary.discriminator_loss(real, fake).item()
    for _ in range(60):
        optimiser.zero_grad()
        adversary.discriminator_loss(real, fake).backward()
        optimiser.step()
    assert adversary.discriminator_loss(real, fake).item() < before / 2
    assert adversary.discriminator(real).mean() > adversary.discriminator(fake).mean()
    assert adversary.generator_loss(real).item() < adversary.generator_loss(fake).item()
    fake.requires_grad_()
    adversary.generator_loss(fake).backward()
    assert fake.grad.mean() < 0


def test_saved_and_loaded() -> None:
    adversary, other = Adversary(width=4), Adversary(width=4)
    adversary.discriminator_loss(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    other.load_state_dict(adversary.state_dict())
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(adversary.eval().generator_loss(image), other.eval().generator_loss(image))
    assert sum(parameter.numel() for parameter in adversary.optimiser().param_groups[0]["params"]) > 0


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ValueError, match="loss must be one of hinge, least_squares, got 'wasserstein'"):
        Adversary("wasserstein")
