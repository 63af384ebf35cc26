"""Every exception that vqcodec raises on purpose.

    VqcodecError
    ├── InvalidArgument    (ValueError)    the caller passed something invalid
    ├── ImageError         (ValueError)    an image cannot be read or is unsupported
    ├── FormatError        (ValueError)    a .vqc file does not follow the format
    │   ├── NotVqcodec                     wrong magic bytes
    │   ├── UnsupportedVersion             a newer format than this library can read
    │   ├── CorruptChunk       .chunk      a chunk is damaged or contradicts the header
    │   ├── TruncatedFile      .chunk      the file ends inside or before a chunk
    │   └── LimitExceeded                  valid, but larger than the caller's ``Limits``
    ├── ModelError         (ValueError)    a model file is invalid
    │   └── ModelMismatch                  the file was made with another model
    └── BackendError       (RuntimeError)  the compiled core or a device failed

The built-in bases let ``except ValueError`` work for callers who do not know
this library. Messages say what was expected and what was found. This module
imports nothing, so that every layer may import it.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "CorruptChunk",
    "FormatError",
    "ImageError",
    "InvalidArgument",
    "LimitExceeded",
    "ModelError",
    "ModelMismatch",
    "NotVqcodec",
    "TruncatedFile",
    "UnsupportedVersion",
    "VqcodecError",
]


class VqcodecError(Exception):
    """Base class of all errors in this library."""


class InvalidArgument(VqcodecError, ValueError):
    """An argument has the wrong type, shape, dtype or range."""


class ImageError(VqcodecError, ValueError):
    """An image cannot be read, or is of a kind that cannot be coded."""


class FormatError(VqcodecError, ValueError):
    """Bytes that should be a vqcodec file, or a stream in one, are not valid."""


class NotVqcodec(FormatError):
    """The bytes do not begin with the vqcodec magic number."""


class UnsupportedVersion(FormatError):
    """The file needs a newer library: its version or a critical chunk is unknown."""


class _ChunkError(FormatError):
    """A ``FormatError`` about one chunk.

    chunk: its human-readable name: "header", "map 3", "ICC profile".
    detail: what was expected and what was found.
    """

    def __init__(self, chunk: str, detail: str) -> None:
        super().__init__(chunk, detail)  # as args, so that the error pickles
        self.chunk = chunk
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.chunk}: {self.detail}"


class CorruptChunk(_ChunkError):
    """A chunk fails its check, or its content contradicts the format."""


class TruncatedFile(_ChunkError):
    """The file ends before or inside the named chunk."""


class LimitExceeded(FormatError):
    """The file requires more than the given limits allow (pixels, bytes, chunks)."""


class ModelError(VqcodecError, ValueError):
    """A model file cannot be read, or its content is inconsistent."""


class ModelMismatch(ModelError):
    """A file was made with a different model from the one in use.

    expected: fingerprint given in the file (hexadecimal).
    found: fingerprint of the model in use (hexadecimal).
    """

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"the file needs model {self.expected}, but the model in use is {self.found}"


class BackendError(VqcodecError, RuntimeError):
    """The compiled core or a device failed."""
