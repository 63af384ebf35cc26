import pytest
import torch
import torch.nn.functional as F

from training.perceptual import distortion, oklab, structure


def picture(seed: int, side: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.rand(2, 3, side // 4, side // 4, generator=generator), scale_factor=4, mode="bilinear")


def plain(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb).reshape(1, 3, 1, 1).expand(1, 3, 64, 64).contiguous()


@pytest.mark.parametrize(
    "rgb, expected",  # of the published definition
    [((1, 1, 1), (1.0, 0.0, 0.0)), ((1, 0, 0), (0.628, 0.225, 0.126)), ((0, 0, 1), (0.452, -0.032, -0.312))],
)
def test_oklab(rgb, expected):
    assert oklab(plain(*rgb))[0, :, 0, 0].tolist() == pytest.approx(expected, abs=4e-3)


def test_equal_pictures_have_none():
    assert float(distortion(picture(1), picture(1))) == pytest.approx(0, abs=1e-6)


def test_its_scale_is_that_of_the_squared_error():
    x = picture(2)
    blurred = F.avg_pool2d(F.pad(x, (2,) * 4, mode="replicate"), 5, stride=1)
    assert 0.1 < float(distortion(blurred, x)) / float(F.mse_loss(blurred, x)) < 10


def test_a_shift_of_hue_costs_more_than_noise_of_the_same_size():
    torch.manual_seed(0)
    x = plain(0.3, 0.5, 0.3)
    shift = torch.tensor([0.03, -0.02, 0.03]).reshape(1, 3, 1, 1)
    shifted, noisy = x + shift, x + shift * torch.randn(1, 1, 64, 64).sign()
    pooled = [F.avg_pool2d(oklab(each), 16) for each in (shifted, noisy, x)]
    assert F.mse_loss(pooled[0], pooled[2]) > 10 * F.mse_loss(pooled[1], pooled[2])
    assert structure(oklab(noisy), oklab(x)) > structure(oklab(shifted), oklab(x))


def test_gradients_lead_back_into_the_range():
    """Pixels far outside [0, 1] get finite gradients towards it."""
    x = torch.full((1, 3, 64, 64), 1.0)
    decoded = torch.full((1, 3, 64, 64), 1.5, requires_grad=True)
    distortion(0.9 * decoded - 0.5, x).backward()
    assert decoded.grad is not None and torch.isfinite(decoded.grad).all() and (decoded.grad <= 0).all()
    decoded.grad = None
    distortion(-decoded, x).backward()
    assert torch.isfinite(decoded.grad).all() and (decoded.grad >= 0).all()


def test_the_smallest_crops():
    assert torch.isfinite(distortion(picture(3, 16), picture(4, 16)))
