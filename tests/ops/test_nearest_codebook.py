"""nearest_codebook and codebook_statistics: every backend equals the NumPy definition, exactly."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.support import cuda_core
from vqcodec import ops
from vqcodec.errors import BackendError, InvalidArgument
from vqcodec.ops import codebook_statistics, cpu
from vqcodec.ops.reference import quantizer as reference_quantizer

VARIANTS = [*cpu.cpu_variants(), "cuda"]
pytestmark = pytest.mark.usefixtures("cuda_kernels")
INF = float("inf")


def test_which_variants_run(capsys):
    with capsys.disabled():
        print(f"\n    nearest_codebook runs as: {', '.join(VARIANTS)}", end=" ")
    assert "scalar" in VARIANTS
    assert cpu.select_variant() in VARIANTS


@pytest.fixture(autouse=True)
def restore_num_threads():
    before = cpu.get_num_threads()
    yield
    cpu.set_num_threads(before)


def nearest_codebook(*arguments, variant=None, **options):
    """`vqcodec.ops.nearest_codebook`, with one more variant."""
    if variant == "cuda":
        return cuda_core.nearest_codebook(*arguments, **options)
    return ops.nearest_codebook(*arguments, variant=variant, **options)


def problem(rows: int, codes: int, dims: int, seed: int, ties: bool) -> tuple[np.ndarray, ...]:
    """z, codebook, bias. With ties: few distinct values, so that many codes are equally near."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        if ties:
            return random.integers(-1, 2, shape).astype(np.float32)
        return random.standard_normal(shape, dtype=np.float32)

    return draw(rows, dims), draw(codes, dims), draw(codes)


def as_torch(*arrays: np.ndarray | None) -> list[torch.Tensor | None]:
    return [None if a is None else torch.from_numpy(a) for a in arrays]


# ------------------------------------------------------------------ the definition itself


def test_reference_worked_example():
    """The example of csrc/quantizer/nearest_codebook_definition.h."""
    z, codebook = np.float32([[2]]), np.float32([[0], [3]])
    assert reference_quantizer.codebook_offsets(codebook, np.float32([0, 1])).tolist() == [0, 10]
    assert reference_quantizer.nearest_codebook(z, codebook, np.float32([0, 1])).tolist() == [1]


def test_reference_fma_where_rounding_twice_is_wrong():
    # a b = 2^-24 (1 - 2^-46) is a little less than half a unit of c = 1 + 2^-23, so the sum rounds
    # down, to c. In float64 it rounds to the middle, and from there to even, upwards.
    a, b, c = np.float32([2**-24 * (1 + 2**-23)]), np.float32([1 - 2**-23]), np.float32([1 + 2**-23])
    assert np.float32(a.astype(np.float64) * b + c) == 1 + 2**-22
    assert reference_quantizer.fma(a, b, c) == c


fmaf = ctypes.CDLL(ctypes.util.find_library("m")).fmaf
fmaf.argtypes = [ctypes.c_float] * 3
fmaf.restype = ctypes.c_float
any_float = st.floats(width=32)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(any_float, any_float, any_float)
@example(2**-24 * (1 + 2**-23), 1 - 2**-23, 1 + 2**-23)
@example(2.0**-149, 0.5, 2.0**-149)
@example(-(2.0**-75), 2.0**-75, 1.0)
@example(2.0**127, 2.0, -(2.0**127))
@example(INF, 0.0, 1.0)
def test_reference_fma_is_that_of_c(a, b, c):
    found = reference_quantizer.fma(*(np.float32([x]) for x in (a, b, c)))
    np.testing.assert_array_equal(found, np.float32([fmaf(a, b, c)]))


def test_reference_fma_near_ties():
    """Random operands, of which most sums lie close to the middle between two float32."""
    random = np.random.default_rng(0)
    one = 1 + random.integers(0, 2**23, (3, 20000)) * 2.0**-23
    a, b, c = one.astype(np.float32)
    a *= np.float32(2**-24)
    b = np.float32(1) + (b - np.float32(1)) * np.float32(2.0) ** -random.integers(0, 23, 20000)
    expected = np.float32([fmaf(*map(float, xyz)) for xyz in zip(a, b, c, strict=True)])
    np.testing.assert_array_equal(reference_quantizer.fma(a, b, c), expected)


# ------------------------------------------------------------------ backends


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=60, deadline=None)
@given(
    rows=st.one_of(st.integers(0, 70), st.sampled_from([191, 192, 193, 400])),
    codes=st.one_of(st.integers(1, 40), st.sampled_from([127, 512, 600])),
    dims=st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 64, 70])),
    seed=st.integers(0, 2**32 - 1),
    ties=st.booleans(),
    biased=st.booleans(),
)
@example(rows=0, codes=1, dims=1, seed=0, ties=False, biased=False)
@example(rows=193, codes=600, dims=70, seed=0, ties=True, biased=True)
def test_equals_reference(kind, threads, variant, rows, codes, dims, seed, ties, biased):
    cpu.set_num_threads(threads)
    z, codebook, bias = problem(rows, codes, dims, seed, ties)
    bias = bias if biased else None
    expected = reference_quantizer.nearest_codebook(z, codebook, bias)
    counts, sums = reference_quantizer.codebook_statistics(z, expected, codes)

    arguments = (z, codebook, bias) if kind == "numpy" else as_torch(z, codebook, bias)
    indices, statistics = nearest_codebook(*arguments, return_statistics=True, variant=variant)
    assert type(indices) is type(statistics.counts) is type(statistics.sums) is type(arguments[0])
    assert str(indices.dtype).endswith("int64")
    np.testing.assert_array_equal(np.asarray(indices), expected)
    np.testing.assert_array_equal(np.asarray(statistics.counts), counts)
    np.testing.assert_array_equal(np.asarray(statistics.sums), sums)


reasonable = st.floats(-(2.0**60), 2.0**60, width=32)  # no score overflows


@st.composite
def awkward_values(draw):
    rows, codes, dims = (draw(st.integers(1, 9)) for _ in range(3))
    return [draw(hnp.arrays(np.float32, (n, dims), elements=reasonable)) for n in (rows, codes)]


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=100, deadline=None)
@given(arrays=awkward_values())
def test_equals_reference_for_any_values(variant, arrays):
    """Subnormals, huge values, equal rows: whatever hypothesis generates."""
    z, codebook = arrays
    expected = reference_quantizer.nearest_codebook(z, codebook)
    np.testing.assert_array_equal(nearest_codebook(z, codebook, variant=variant), expected)


@pytest.mark.parametrize("operand", ["codes", "rows"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dims", [16, 20, 64, 100])
@pytest.mark.parametrize("variant", VARIANTS)
def test_near_ties_that_a_coarse_product_decides_wrongly(variant, dims, flip, operand):
    """Two codes whose order turns on digits that TF32 (a GPU's filter) drops, of the codes or of the rows."""
    one, low = np.ones(dims, np.float32), np.float32(0.99 * 2.0**-11)
    others = problem(1, 100, dims, dims, ties=False)[1] * np.float32(0.1)
    if operand == "codes":
        pair, z = np.stack([one + low, one]), np.repeat(one[None], 20, 0)
        offsets = np.array([0, -dims * low], np.float64)
    else:
        pair, z = np.stack([one, -one]), np.repeat((one + low)[None], 20, 0)
        offsets = np.array([4 * dims + 2 * dims * low, 0], np.float64)
    bias = np.concatenate([offsets - (pair.astype(np.float64) ** 2).sum(1), np.full(100, 400.0)]).astype(np.float32)
    codebook = np.concatenate([pair, others])
    if flip:
        codebook, bias = codebook[::-1].copy(), bias[::-1].copy()
    for scaled in (z, z * np.float32(8)):
        expected = reference_quantizer.nearest_codebook(scaled, codebook, bias)
        np.testing.assert_array_equal(nearest_codebook(scaled, codebook, bias, variant=variant), expected)


@pytest.mark.parametrize("bias_of_it", [0, INF])
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_code_far_away(variant, bias_of_it):
    """Its offset overflows, or it is disabled: the others are compared as if it did not exist."""
    z, codebook, bias = problem(40, 80, 33, 21, ties=False)
    codebook[7], bias[7] = 3e38, bias_of_it
    expected = reference_quantizer.nearest_codebook(z, codebook, bias)
    np.testing.assert_array_equal(nearest_codebook(z, codebook, bias, variant=variant), expected)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_split_and_order_of_rows_do_not_matter(variant):
    z, codebook, bias = problem(1000, 37, 6, 5, ties=True)
    whole = nearest_codebook(z, codebook, bias, variant=variant)
    for size in (1, 7, 192, 500):
        parts = [nearest_codebook(z[i : i + size], codebook, bias, variant=variant) for i in range(0, 1000, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(nearest_codebook(z[::-1], codebook, bias, variant=variant), whole[::-1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_large_codebook_in_chunks(variant):
    z, codebook, bias = problem(50, 3000, 33, 6, ties=False)
    expected = reference_quantizer.nearest_codebook(z, codebook, bias)
    np.testing.assert_array_equal(nearest_codebook(z, codebook, bias, variant=variant), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_strided_views_are_read_in_place(variant):
    wide = problem(60, 1, 40, 7, ties=False)[0]
    codebooks = problem(1, 60, 40, 8, ties=False)[1]
    views = {
        "slice of columns": lambda x: x[:, 3:20],
        "every other row": lambda x: x[::2, :17],
        "backwards": lambda x: x[::-1, 16::-1],
        "every other column": lambda x: x[:, 1:35:2],
        "transposed": lambda x: x[:17, :].T,
        "one row many times": lambda x: np.broadcast_to(x[0, :17], (30, 17)),
    }
    bias = codebooks[:, ::3].ravel()
    for name, view in views.items():
        z, codebook = view(wide), view(codebooks)
        some_bias = bias[: 2 * len(codebook) : 2]
        expected = reference_quantizer.nearest_codebook(z, codebook, some_bias)
        found, statistics = nearest_codebook(z, codebook, some_bias, return_statistics=True, variant=variant)
        np.testing.assert_array_equal(found, expected, err_msg=name)
        counts, sums = reference_quantizer.codebook_statistics(z, expected, len(codebook))
        np.testing.assert_array_equal(statistics.counts, counts, err_msg=name)
        np.testing.assert_array_equal(statistics.sums, sums, err_msg=name)


def test_tensors_with_strides_and_gradients():
    z, codebook, _ = problem(24, 9, 8, 9, ties=False)
    expected = reference_quantizer.nearest_codebook(z, codebook)
    images = torch.from_numpy(z.reshape(1, 4, 6, 8)).permute(0, 3, 1, 2).contiguous()  # B x D x H x W
    rows = images.requires_grad_().permute(0, 2, 3, 1).reshape(-1, 8)
    found = nearest_codebook(rows, torch.from_numpy(codebook).requires_grad_())
    np.testing.assert_array_equal(found.numpy(), expected)
    assert not found.requires_grad


@pytest.mark.parametrize("variant", VARIANTS)
def test_lowest_index_wins_ties(variant):
    z = np.float32([[1, 2, 3]]).repeat(50, axis=0)
    for codes in (2, 17, 100):
        same = z[:1].repeat(codes, axis=0)
        assert not nearest_codebook(z, same, variant=variant).any()
        bias = np.zeros(codes, np.float32)
        bias[0] = 1
        assert (nearest_codebook(z, same, bias, variant=variant) == 1).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_infinite_bias_disables_a_code(variant):
    z, codebook, _ = problem(40, 6, 3, 10, ties=False)
    bias = np.float32([INF, 0, INF, 0, 0, INF])
    found = nearest_codebook(z, codebook, bias, variant=variant)
    np.testing.assert_array_equal(found, np.array([1, 3, 4])[nearest_codebook(z, codebook[[1, 3, 4]], variant=variant)])


def test_subnormals_survive_flush_to_zero():
    """torch.set_flush_denormal changes the processor's mode; the result must not change."""
    z, codebook = np.float32([[2e-39]]), np.float32([[-1e-39], [2e-39]]) * np.float32(1)
    bias = np.float32([0, 1e-45])
    expected = reference_quantizer.nearest_codebook(z, codebook, bias)
    assert torch.set_flush_denormal(True)
    try:
        for variant in VARIANTS:
            np.testing.assert_array_equal(nearest_codebook(z, codebook, bias, variant=variant), expected)
    finally:
        torch.set_flush_denormal(False)


# ------------------------------------------------------------------ statistics


def test_statistics_do_not_depend_on_threads():
    z, _, _ = problem(5000, 1, 50, 11, ties=False)
    indices = np.random.default_rng(0).integers(0, 7, 5000)
    cpu.set_num_threads(1)
    counts, sums = codebook_statistics(z, indices, 8)
    assert counts[7] == 0 and not sums[7].any()
    for threads in (2, 3, 5):
        cpu.set_num_threads(threads)
        again = codebook_statistics(z, indices, 8)
        np.testing.assert_array_equal(again.counts, counts)
        np.testing.assert_array_equal(again.sums, sums)


def test_order_of_sums():
    """Values of all magnitudes that cancel: any other order of the rows gives other sums."""
    random = np.random.default_rng(3)
    z = (random.standard_normal((700, 3)) * np.exp2(random.integers(0, 100, (700, 3)))).astype(np.float32)
    z[1::2] = -z[::2]
    order = random.permutation(700)
    z, indices = z[order], np.repeat(random.integers(0, 3, 350), 2)[order]
    z += random.standard_normal((700, 3)).astype(np.float32)
    expected = reference_quantizer.codebook_statistics(z, indices, 5)
    backwards = reference_quantizer.codebook_statistics(z[::-1], indices[::-1], 5)
    assert not np.array_equal(expected[1], backwards[1])
    for found in (codebook_statistics(z, indices, 5), cuda_core.codebook_statistics(z, indices, 5)):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_statistics_sum_in_float64():
    z = np.float32([[1e8], [1], [-1e8]])
    assert codebook_statistics(z, np.zeros(3, np.int64), 1).sums.tolist() == [[1]]


# ------------------------------------------------------------------ arguments


Z, CODEBOOK, BIAS = problem(4, 3, 2, 12, ties=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.0, 1.0]], CODEBOOK), "z must be a NumPy array or a PyTorch tensor, got list"),
        ((Z, torch.zeros(3, 2)), "codebook must be a ndarray as z is, got Tensor"),
        ((Z.astype(np.float64), CODEBOOK), "z must be float32, got float64"),
        ((Z.astype(">f4"), CODEBOOK), "z must be float32, got >f4"),
        ((torch.zeros(4, 2), torch.zeros(3, 2).half()), "codebook must be float32, got torch.float16"),
        ((Z[0], CODEBOOK), r"z must have shape \[N, D\], got \[2\]"),
        ((Z, CODEBOOK[:, :1]), r"codebook must have shape \[K, 2\], got \[3, 1\]"),
        ((Z, CODEBOOK, BIAS[:2]), r"bias must have shape \[3\], got \[2\]"),
        ((Z, CODEBOOK[:0]), "codebook must have at least one code and one dimension, got 0 x 2"),
        ((Z[:, :0], CODEBOOK[:, :0]), "codebook must have at least one code and one dimension, got 3 x 0"),
        ((Z, np.full_like(CODEBOOK, np.nan)), "codebook must be finite, got nan in code 0"),
        ((Z, CODEBOOK, np.float32([0, 0, np.nan])), "bias must be finite or .inf, got nan for code 2"),
        ((Z, CODEBOOK, np.float32([0, -INF, 0])), "bias must be finite or .inf, got -inf for code 1"),
        ((Z, CODEBOOK, np.float32([INF, INF, INF])), "row 0 has no code with a finite score"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        nearest_codebook(*arguments)


@pytest.mark.parametrize("bad", [np.nan, INF, -INF, 3e38])
@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_without_a_nearest_code(variant, bad):
    z, codebook, _ = problem(1000, 20, 5, 13, ties=False)
    z[[457, 900], 3] = bad
    codebook[:, 3] = 2  # so that 3e38 overflows
    for find in (reference_quantizer.nearest_codebook, partial(nearest_codebook, variant=variant)):
        with pytest.raises(InvalidArgument, match="row 457 has no code with a finite score"):
            find(z, codebook)


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_that_overflow_are_never_the_lowest(variant):
    z, codebook = np.float32([[1e38, 0]]), np.float32([[-2, 0], [0, 1], [1e20, 0]])
    assert reference_quantizer.nearest_codebook(z, codebook).tolist() == [1]
    assert nearest_codebook(z, codebook, variant=variant).tolist() == [1]


@pytest.mark.parametrize("index", [-1, 3])
def test_statistics_refuse_indices_outside(index):
    with pytest.raises(InvalidArgument, match=f"indices must be in 0..2, got {index} in row 1"):
        codebook_statistics(Z[:2], np.array([0, index]), 3)
    with pytest.raises(InvalidArgument, match="indices must be int64"):
        codebook_statistics(Z[:2], np.zeros(2, np.int32), 3)


def test_unaligned_memory_is_copied():
    raw = np.zeros(Z.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(Z.shape)
    unaligned[:] = Z
    np.testing.assert_array_equal(nearest_codebook(unaligned, CODEBOOK), nearest_codebook(Z, CODEBOOK))


# ------------------------------------------------------------------ PyTorch


@pytest.mark.slow
def test_custom_ops_keep_the_rules_of_torch():
    z, codebook, bias = as_torch(*problem(30, 7, 4, 14, ties=False))
    indices = nearest_codebook(z, codebook)
    torch.library.opcheck(torch.ops.vqcodec.nearest_codebook.default, (z, codebook, bias))
    torch.library.opcheck(torch.ops.vqcodec.nearest_codebook.default, (z, codebook, None, "scalar"))
    torch.library.opcheck(torch.ops.vqcodec.codebook_statistics.default, (z, indices, 7))


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    z, codebook, bias = as_torch(*problem(30, 7, 4, 15, ties=False))

    def quantise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        indices, statistics = nearest_codebook(rows, codebook, bias, return_statistics=True)
        return codebook[indices], statistics.counts + 1

    compiled = torch.compile(quantise, fullgraph=True, backend="aot_eager")
    for expected, found in zip(quantise(z), compiled(z), strict=True):
        assert torch.equal(expected, found)


def test_importing_ops_loads_neither_torch_nor_the_core():
    script = "import sys, vqcodec.ops; sys.exit(' '.join({'torch', 'vqcodec._native'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", script], check=True)


# ------------------------------------------------------------------ the core's settings


def in_new_process(*script: str, **environment: str) -> str:
    """What a script prints, line by line, with `cpu` imported."""
    command = [sys.executable, "-c", "\n".join(["from vqcodec.ops import cpu", *script])]
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.mark.slow
def test_settings_from_the_environment():
    assert in_new_process("print(cpu.get_num_threads())", VQCODEC_NUM_THREADS="3") == "3"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert in_new_process("print(cpu.get_num_threads())", VQCODEC_NUM_THREADS="") == str(cores)
    for variant in cpu.cpu_variants():
        assert in_new_process("print(cpu.select_variant())", VQCODEC_CPU=variant) == variant


@pytest.mark.parametrize("wrong", ["none", "0", "-2", "100000"])
def test_wrong_number_of_threads(wrong):
    with pytest.raises(InvalidArgument, match="number of threads must be in 1..1024, got 0"):
        cpu.set_num_threads(0)
    found = in_new_process(
        "from vqcodec.errors import InvalidArgument",
        "try: cpu.get_num_threads()",
        "except InvalidArgument as error: print(error)",
        VQCODEC_NUM_THREADS=wrong,
    )
    assert found == f"VQCODEC_NUM_THREADS must be a number from 1 to 1024, got '{wrong}'"


def test_wrong_variant(monkeypatch):
    with pytest.raises(InvalidArgument, match="variant must be one of scalar, avx2, avx512, neon, got 'sse'"):
        nearest_codebook(Z, CODEBOOK, variant="sse")
    for missing in {"scalar", "avx2", "avx512", "neon"} - set(VARIANTS):
        with pytest.raises(BackendError, match="does not run on this CPU"):
            nearest_codebook(Z, CODEBOOK, variant=missing)
    monkeypatch.setenv("VQCODEC_CPU", "mmx")
    with pytest.raises(InvalidArgument, match="VQCODEC_CPU must be one of scalar, avx2, avx512, neon, got 'mmx'"):
        nearest_codebook(Z, CODEBOOK)


def test_a_missing_core_says_how_to_build_it():
    found = in_new_process(
        "import sys; sys.modules['vqcodec._native'] = None",
        "from vqcodec.errors import BackendError",
        "try: cpu.cpu_variants()",
        "except BackendError as error: print(error)",
    )
    assert found.startswith("the compiled core vqcodec._native cannot be loaded")
    assert "pip install ." in found


def test_after_fork():
    z, codebook, _ = problem(3000, 50, 8, 16, ties=False)
    cpu.set_num_threads(2)
    expected = nearest_codebook(z, codebook)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(nearest_codebook(z, codebook), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(nearest_codebook(z, codebook), expected)
