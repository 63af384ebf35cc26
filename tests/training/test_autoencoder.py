"""Stage 1: codebooks and hierarchy, in float; test_fixed_point.py has the integers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.autoencoders import autoencoder_configs, random_autoencoder
from training.networks.autoencoder import Autoencoder
from training.networks.quantizer import Quantizer, Rate, lloyd
from vqcodec.errors import InvalidArgument
from vqcodec.model.config import AutoencoderConfig, CodeMap, ffhq1024, imagenet256

SMALL = AutoencoderConfig(
    maps=(CodeMap(16, 4, 32), CodeMap(8, 2, 16), CodeMap(8, 3, 16), CodeMap(8, 3, 16, refines=2)),
    hidden=24,
    residual=8,
    encoder_blocks=1,
    decoder_blocks=1,
    refine=8,
    refine_blocks=1,
)
RATE = Rate(lagrangian=5e-3, level=3)


def quantizer(**changes) -> Quantizer:
    options = dict(decay=0.99, null_code=False, levels=2) | changes
    torch.manual_seed(0)
    return Quantizer(CodeMap(8, 3, 8), **options)


class TestQuantizer:
    def test_moving_averages_follow_the_paper(self):
        """N, m and e after one update, written out by hand (paper: below equation 2)."""
        q = quantizer()
        z = torch.randn(1, 3, 20, 20)
        before = q.codebook.clone(), q.count.clone(), q.total.clone()
        codes = q.train()(z).codes.flatten()
        rows = z.permute(0, 2, 3, 1).reshape(-1, 3)
        n = torch.bincount(codes, minlength=8) / len(rows)
        m = torch.stack([rows[codes == k].sum(0) for k in range(8)]) / len(rows)
        torch.testing.assert_close(q.count, 0.99 * before[1] + 0.01 * n)
        torch.testing.assert_close(q.total, 0.99 * before[2] + 0.01 * m)
        torch.testing.assert_close(q.codebook, q.total / q.count[:, None], rtol=1e-4, atol=1e-6)

    def test_dead_codes_move_with_all_their_state(self):
        q = quantizer()
        q.codebook[3], q.count[3] = 1000.0, 1e-9  # never chosen
        z = torch.randn(1, 3, 20, 20) * 5
        q.train()(z)
        share = q.count[3]
        assert share > 1e-6 and (q.usage[:, 3] == share).all()
        torch.testing.assert_close(q.codebook[3], q.total[3] / share, rtol=1e-2, atol=1e-3)
        distance = (z.permute(0, 2, 3, 1).reshape(-1, 3) - q.codebook[3]).square().sum(1)
        assert distance.min() < 1e-3  # it sits on a vector of the batch
        revived = q.codebook[3].clone()
        q(z)  # the next update must not pull it back
        assert (q.codebook[3] - revived).norm() < revived.norm()

    def test_null_code_stays_zero(self):
        q = quantizer(null_code=True).train()
        for _ in range(5):
            q(torch.randn(1, 3, 16, 16), Rate(0.01, 1))
        assert (q.codebook[0] == 0).all()

    def test_higher_lambda_costs_fewer_bits(self):
        q = quantizer(null_code=True)
        rows = torch.randn(4000, 3)
        q.reset(*lloyd(rows, 8, 0.05))
        z = rows.t().reshape(1, 3, 40, 100)
        lengths = q.bits(0)
        spent = [float(lengths[q.eval()(z, Rate(lam, 0)).codes].sum()) for lam in (1e-4, 0.1, 1.0, 10.0)]
        assert spent == sorted(spent, reverse=True) and spent[-1] < spent[0]

    def test_evaluation_changes_nothing(self):
        q = quantizer().eval()
        before = {k: v.clone() for k, v in q.state_dict().items()}
        q(torch.randn(1, 3, 16, 16), Rate(0.01, 0))
        for name, value in q.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_expected_bits_pull_towards_cheap_codes(self):
        """The gradient of the rate moves an undecided vector towards the frequent code."""
        q = quantizer(null_code=True)
        q.reset(
            torch.tensor([[0.0, 0, 0], [1.0, 0, 0], *[[9.0, 9, k] for k in range(6)]]),
            torch.tensor([0.9, 0.1, *[1e-6] * 6]),
        )
        z = torch.tensor([[0.5, 0, 0]]).repeat(4, 1).requires_grad_()
        q.expected_bits(z, Rate(0.2, 0)).backward()
        assert (z.grad[::2, 0] > 0).all()  # less of it costs fewer bits


class TestAutoencoder:
    def model(self) -> Autoencoder:
        torch.manual_seed(0)
        return Autoencoder(SMALL)

    @pytest.mark.parametrize(
        "config", [SMALL, imagenet256().autoencoder, ffhq1024().autoencoder], ids=["small", "imagenet256", "ffhq1024"]
    )
    def test_encode_then_decode_is_forward(self, config):
        torch.manual_seed(0)
        model = Autoencoder(config).eval()
        rate = RATE if config.null_code else None
        x = torch.rand(1, 3, 64, 32 * 2)
        with torch.no_grad():
            out = model(x, rate)
            codes = model.encode(x, rate)
            for m, a, b in zip(config.maps, codes, out.codes):
                assert a.shape == (1, 64 // m.stride, 64 // m.stride) and torch.equal(a, b)
            torch.testing.assert_close(model.decode(codes), out.pixels.clamp(0, 1), rtol=0, atol=2e-5)

    def test_prefixes_decode(self):
        model = self.model().eval()
        x = torch.rand(1, 3, 32, 48)
        codes = model.encode(x, RATE)
        for n in range(1, len(codes) + 1):
            with torch.no_grad():
                expected = model(x, RATE, keep=n).pixels.clamp(0, 1)
            zeroed = [c if i < n else torch.zeros_like(c) for i, c in enumerate(codes)]
            torch.testing.assert_close(model.decode(codes[:n]), model.decode(zeroed), rtol=0, atol=0)
            if n == 1 or n == len(codes):  # in between, later maps would be chosen given fewer
                torch.testing.assert_close(model.decode(codes[:n]), expected, rtol=0, atol=2e-5)
        with pytest.raises(InvalidArgument):
            model.decode([])
        with pytest.raises(InvalidArgument):
            model.decode([*codes, codes[-1]])

    def test_start_is_a_transform_codec(self):
        """After `start`, and before any training, the image is there."""
        y, x = torch.meshgrid(torch.linspace(0, 9, 64), torch.linspace(0, 7, 64), indexing="ij")
        image = torch.stack([0.5 + 0.4 * torch.sin(x + k) * torch.cos(y * k) for k in (0.5, 1, 2)])[None]
        model = self.model()
        model.start(image, RATE)
        with torch.no_grad():
            error = (model.eval()(image, RATE).pixels - image).square().mean()
        assert error < 0.1 * image.var()  # 16 codes; an untrained network gives 1.0 and more

    @given(autoencoder_configs(), st.integers(0, 2**31))
    @settings(max_examples=20, deadline=None)
    def test_restore_inverts_export(self, config, seed):
        exported = random_autoencoder(config, seed).export()
        model = Autoencoder(config)
        model.restore(exported, torch.rand(1, 3, 64, 64))
        again = model.export()
        assert exported.keys() == again.keys()
        for name in exported:
            part, _, kind = name.rpartition(".")
            if kind == "weight":  # to a unit of the last place: the largest exponent may allow no more
                units = [
                    np.exp2(-arrays[f"{part}.shift"].astype(float))[..., None, None] for arrays in (exported, again)
                ]
                first, second = (arrays[name] * unit for arrays, unit in zip((exported, again), units))
                assert (np.abs(first - second) <= units[1]).all(), name
            elif part == "codebook":
                assert np.array_equal(exported[name][1:], again[name][1:]), name  # code 0 is zero

    def test_maps_that_a_model_lacks_describe_what_it_leaves_out(self):
        torch.manual_seed(1)
        images = F.interpolate(torch.rand(8, 3, 16, 16), scale_factor=4, mode="bilinear")
        fewer = dataclasses.replace(SMALL, maps=SMALL.maps[:2])
        before, after = Autoencoder(fewer), Autoencoder(SMALL)
        before.start(images, RATE)
        exported = before.export()
        after.start(images, RATE, exported)
        for name, array in after.export().items():
            if name.startswith("codebook") and name in exported:
                assert np.array_equal(array, exported[name])
        with torch.no_grad():
            errors = [float(F.mse_loss(model.eval()(images, RATE).pixels, images)) for model in (before, after)]
        assert errors[1] < 0.9 * errors[0]

    def test_a_model_of_another_shape_is_refused(self):
        exported = self.model().export()
        wider = Autoencoder(dataclasses.replace(SMALL, encoder_blocks=SMALL.encoder_blocks + 1))
        with pytest.raises(InvalidArgument, match="not one to go on from: encoder"):
            wider.restore(exported, torch.rand(1, 3, 64, 64))

    def test_gradients_reach_every_parameter(self):
        model = self.model()
        with torch.no_grad():  # zero-initialised branches hide what lies behind them
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        out = model.train()(torch.rand(2, 3, 32, 32), RATE)
        (out.pixels.square().mean() + out.commitment + out.bits).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name

    @given(st.integers(1, 3), st.integers(1, 3))
    @settings(max_examples=5, deadline=None)
    def test_batches_do_not_mix(self, rows, columns):
        model = self.model().eval()
        x = torch.rand(2, 3, 16 * rows, 16 * columns)
        both, first = model.encode(x, RATE), model.encode(x[:1], RATE)
        for a, b in zip(both, first):
            assert torch.equal(a[:1], b)

    def test_quantised_it_is_nearly_the_float_network(self):
        torch.manual_seed(1)
        model, x = self.model().eval(), torch.rand(2, 3, 32, 48)
        model.start(x, RATE)
        model.calibrate(x)
        codes = model.eval().encode(x, RATE)
        before = model.decode(codes)
        model.quantized = True
        after = model.decode(codes)
        assert 0 < (before - after).square().mean() < 1e-3 * before.var()

    def test_gradients_reach_every_parameter_when_quantised(self):
        model = self.model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        x = torch.rand(2, 3, 32, 32)
        model.calibrate(x)
        model.quantized = True
        out = model.train()(x, RATE)
        (out.pixels.square().mean() + out.commitment + out.bits).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name

    def test_calibration_changes_only_formats(self):
        model = self.model().train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        model.calibrate(torch.rand(1, 3, 32, 32))
        assert model.training and not model.quantized
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed and all(name.endswith("format.fraction") for name in changed)
