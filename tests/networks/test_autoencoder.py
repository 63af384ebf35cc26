"""Stage 1: codebooks, hierarchy, presets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcodec.errors import InvalidArgument
from vqcodec.model.config import AutoencoderConfig, CodeMap, ModelConfig, PriorConfig, ffhq1024, imagenet256, preset
from vqcodec.networks.autoencoder import Autoencoder
from vqcodec.networks.quantizer import Quantizer, Rate, lloyd

SMALL = AutoencoderConfig(
    maps=(CodeMap(16, 4, 32), CodeMap(8, 2, 16), CodeMap(8, 3, 16), CodeMap(8, 3, 16, residual=True)),
    hidden=24, residual=8, encoder_blocks=1, decoder_blocks=1, refine=8, refine_blocks=1,
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
        q.reset(torch.tensor([[0.0, 0, 0], [1.0, 0, 0], *[[9.0, 9, k] for k in range(6)]]),
                torch.tensor([0.9, 0.1, *[1e-6] * 6]))
        z = torch.tensor([[0.5, 0, 0]]).repeat(4, 1).requires_grad_()
        q.expected_bits(z, Rate(0.2, 0)).backward()
        assert (z.grad[::2, 0] > 0).all()  # less of it costs fewer bits


    @settings(deadline=None)
    @given(st.integers(1, 7), st.integers(1, 12), st.floats(0.001, 10), st.integers(0, 999))
    def test_candidates_are_those_of_least_weighted_cost(self, rows, count, lagrangian, seed):
        torch.manual_seed(seed)
        q = Quantizer(CodeMap(stride=8, dim=3, codes=9), decay=0.9, null_code=True, levels=2).eval()
        z, weights = torch.randn(rows, 3), torch.rand(rows) * 3 + 0.1
        chosen, error = q.candidates(z, Rate(lagrangian, 1), count, weights)
        square = (z[:, None] - q.codebook).square().sum(2) * weights[:, None] / lagrangian
        assert chosen.shape == error.shape == (rows, min(count, 9))
        torch.testing.assert_close(error, square.gather(1, chosen), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close((square + q.bits(1)).sort(1).values[:, : min(count, 9)], error + q.bits(1)[chosen], rtol=1e-3, atol=1e-3)

    def test_weights_make_bits_cheaper_down_to_the_least(self):
        rate = Rate(0.01, 3, weights=(1.0, 2.0, 0.5, 1000.0), least=0.002)
        assert [rate.of(i) for i in range(4)] == [Rate(x, 3) for x in (0.01, 0.005, 0.02, 0.002)]
        assert Rate(0.001, 0, (2.0, 0.5), least=0.002).of(0).lagrangian == 0.001  # already below: as it is
        assert Rate(0.01, 1).of(5) == Rate(0.01, 1)


class TestAutoencoder:
    def model(self) -> Autoencoder:
        torch.manual_seed(0)
        return Autoencoder(SMALL)

    @pytest.mark.parametrize("config", [SMALL, imagenet256().autoencoder, ffhq1024().autoencoder], ids=["small", "imagenet256", "ffhq1024"])
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
        """After `start`, and before any training, the picture is there."""
        y, x = torch.meshgrid(torch.linspace(0, 9, 64), torch.linspace(0, 7, 64), indexing="ij")
        picture = torch.stack([0.5 + 0.4 * torch.sin(x + k) * torch.cos(y * k) for k in (0.5, 1, 2)])[None]
        model = self.model()
        model.start(picture, RATE)
        with torch.no_grad():
            error = (model.eval()(picture, RATE).pixels - picture).square().mean()
        assert error < 0.1 * picture.var()  # 16 codes; an untrained network gives 1.0 and more

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


class TestConfig:
    def test_paper_presets(self):
        """Tables 3, 4 and 5, number by number."""
        image, face = imagenet256(), ffhq1024()
        assert [256 // m.stride for m in image.autoencoder.maps] == [32, 64]
        assert [1024 // m.stride for m in face.autoencoder.maps] == [32, 64, 128]
        for config in (image.autoencoder, face.autoencoder):
            assert (config.hidden, config.residual, config.encoder_blocks, config.decoder_blocks) == (128, 64, 2, 2)
            assert (config.encoder_kernel, config.upsample_kernel, config.beta, config.decay) == (3, 4, 0.25, 0.99)
            assert all((m.codes, m.dim) == (512, 64) for m in config.maps)
        columns = [(p.hidden, p.residual, p.layers, p.attention_layers, p.heads, p.kernel, p.dropout, p.output_layers,
                    p.condition_blocks) for p in (*image.priors, *face.priors)]
        assert columns == [
            (512, 2048, 20, 4, 8, 5, 0.1, 20, 0), (512, 1024, 20, 0, 0, 5, 0.1, 0, 20),
            (512, 2048, 20, 4, 8, 5, 0.5, 0, 0), (512, 1024, 20, 1, 8, 5, 0.3, 0, 8), (512, 1024, 10, 0, 0, 5, 0.25, 0, 8),
        ]

    @pytest.mark.parametrize("name", ["default", "imagenet256", "ffhq1024"])
    def test_json_round_trip(self, name):
        config = preset(name)
        assert ModelConfig.from_json(config.to_json()) == config

    @pytest.mark.parametrize("maps", [
        (), (CodeMap(3, 1),), (CodeMap(8, 1), CodeMap(16, 1)), (CodeMap(8, 0),), (CodeMap(8, 1, codes=2),),
        (CodeMap(8, 1, residual=True),), (CodeMap(8, 1), CodeMap(8, 2, residual=True)),
    ])
    def test_illegal_hierarchies(self, maps):
        with pytest.raises(InvalidArgument):
            AutoencoderConfig(maps=maps)

    @pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, float("inf")), (1.0, float("nan"))])
    def test_illegal_weights(self, weights):
        with pytest.raises(InvalidArgument, match="distortion_weights must be empty or a positive number for each of 2 maps"):
            AutoencoderConfig(maps=(CodeMap(stride=8, dim=1), CodeMap(stride=8, dim=1)), distortion_weights=weights)

    def test_classes(self):
        config = ModelConfig("x", SMALL, (PriorConfig(),) * 4, classes=("cat", "dog"))
        assert [config.class_number(c) for c in (None, 0, "cat", "dog", 2, "1", np.int64(2))] == [0, 0, 1, 2, 2, 1, 2]
        for wrong in ("cow", 3, -1, 1.5j, []):
            with pytest.raises(InvalidArgument):
                config.class_number(wrong)
