"""vqcodec: a learned image codec that is also a generative model.

    >>> import vqcodec
    >>> data = vqcodec.compress("photo.png", quality=50)
    >>> image = vqcodec.decompress(data)
    >>> roses = vqcodec.sample("flower-roses", n=4, seed=1)

Importing this package is cheap: the functions load what they need when first called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqcodec.api import (
        Decoder,
        compress,
        decode_maps,
        decompress,
        encode_maps,
        info,
        inpaint,
        open,
        sample,
        set_num_threads,
        upscale,
    )
    from vqcodec.codec.codec import Codec
    from vqcodec.errors import VqcodecError
    from vqcodec.format.container import Limits

__version__ = "0.1.0"

_HOME = {
    "compress": "api",
    "decompress": "api",
    "open": "api",
    "Decoder": "api",
    "decode_maps": "api",
    "encode_maps": "api",
    "sample": "api",
    "inpaint": "api",
    "info": "api",
    "set_num_threads": "api",
    "upscale": "api",
    "Codec": "codec.codec",
    "Limits": "format.container",
    "VqcodecError": "errors",
}

__all__ = [
    "Codec",
    "Decoder",
    "Limits",
    "VqcodecError",
    "compress",
    "decode_maps",
    "decompress",
    "encode_maps",
    "info",
    "inpaint",
    "open",
    "sample",
    "set_num_threads",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
