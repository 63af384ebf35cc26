"""One public function per kernel. Each checks its arguments and picks a backend once.

    nearest_codebook      the nearest code of a codebook for every vector
    codebook_statistics   how often each code was chosen, and by what
    prior_frequencies     where the codes of a known map lie in their frequency tables
    wavefront_decode      code maps from the bytes of a range coder
    wavefront_sample      code maps from random words
    nearest_codes, code_candidates    codes of low cost for an encoder, in integers
    wavefront_choose      code maps for an encoder, from candidates by distortion and rate
    run_network           an integer network
    autoencoder_pixels    pixels from code maps
    autoencoder_features, autoencoder_latents    what an encoder quantises, from pixels

`reference` defines them in NumPy, `cpu` runs the compiled core, `cuda` its kernels
on GPUs (`selftest` says whether a GPU can be trusted), `torch_ops` makes them PyTorch custom ops. Importing this
package loads neither PyTorch nor the core.
"""

from vqcodec.ops import cpu, cuda
from vqcodec.ops.integer_network import autoencoder_features, autoencoder_latents, autoencoder_pixels, run_network
from vqcodec.ops.nearest import CodebookStatistics, codebook_statistics, nearest_codebook
from vqcodec.ops.prior import (
    DecodeJob,
    SampleJob,
    prior_frequencies,
    wavefront_choose,
    wavefront_decode,
    wavefront_decode_batch,
    wavefront_sample,
    wavefront_sample_batch,
)
from vqcodec.ops.rate import code_candidates, nearest_codes
from vqcodec.ops.reference.prior import coding_order

__all__ = [
    "CodebookStatistics",
    "DecodeJob",
    "SampleJob",
    "autoencoder_features",
    "autoencoder_latents",
    "autoencoder_pixels",
    "code_candidates",
    "codebook_statistics",
    "coding_order",
    "cuda",
    "cpu",
    "nearest_codebook",
    "nearest_codes",
    "prior_frequencies",
    "run_network",
    "wavefront_choose",
    "wavefront_decode",
    "wavefront_decode_batch",
    "wavefront_sample",
    "wavefront_sample_batch",
]
