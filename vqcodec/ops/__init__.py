"""One public function per kernel. Each checks its arguments and picks a backend once.

    nearest_codebook      the nearest code of a codebook for every vector
    codebook_statistics   how often each code was chosen, and by what
    prior_frequencies     where the codes of a known map lie in their frequency tables
    wavefront_decode      code maps from the bytes of a range coder
    wavefront_sample      code maps from random words
    wavefront_choose      code maps for an encoder, from candidates by distortion and rate
    run_network           an integer network on planes
    autoencoder_pixels    pixels from code maps
    autoencoder_features  what pixels look like to the networks
    autoencoder_latents   what code maps quantise
    nearest_codes         the code of lowest distortion and rate for every latent
    code_candidates       the most promising ones, for wavefront_choose
    sample_tile           a tile whose samples are coded: encode_samples, decode_samples, draw_samples
    encode_indices        tiles of few colours: decode_indices

`reference` defines them in NumPy, `cpu` runs the compiled core, `cuda` its kernels on GPUs (`selftest` says whether a
GPU can be trusted); `backend` chooses among these. `range_coder` encodes; `torch_ops` makes the quantiser's ops PyTorch custom ops. Importing
this package loads neither PyTorch nor the core.
"""

from vqcodec.ops import backend, cpu, cuda
from vqcodec.ops.autoencoder import (
    autoencoder_features,
    autoencoder_latents,
    autoencoder_pixels,
    run_network,
)
from vqcodec.ops.jobs import DecodeJob, SampleJob
from vqcodec.ops.nearest import CodebookStatistics, codebook_statistics, nearest_codebook
from vqcodec.ops.prior import (
    prior_frequencies,
    wavefront_choose,
    wavefront_decode,
    wavefront_decode_batch,
    wavefront_sample,
    wavefront_sample_batch,
)
from vqcodec.ops.rate import code_candidates, nearest_codes
from vqcodec.ops.reference.prior import coding_order
from vqcodec.ops.samples import (
    SampleTile,
    TileShape,
    decode_indices,
    decode_samples,
    draw_samples,
    encode_indices,
    encode_samples,
    sample_tile,
)

__all__ = [
    "CodebookStatistics",
    "DecodeJob",
    "SampleJob",
    "SampleTile",
    "TileShape",
    "autoencoder_features",
    "autoencoder_latents",
    "autoencoder_pixels",
    "backend",
    "code_candidates",
    "codebook_statistics",
    "coding_order",
    "cpu",
    "cuda",
    "decode_indices",
    "decode_samples",
    "draw_samples",
    "encode_indices",
    "encode_samples",
    "nearest_codebook",
    "nearest_codes",
    "prior_frequencies",
    "run_network",
    "sample_tile",
    "wavefront_choose",
    "wavefront_decode",
    "wavefront_decode_batch",
    "wavefront_sample",
    "wavefront_sample_batch",
]
