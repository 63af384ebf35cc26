"""Work that ends with its first failure."""

from __future__ import annotations

from vqcodec.errors import InvalidArgument


class FailsOnce:
    """A context that can be entered until it is left by an exception; from then on entering it raises that exception.

    For a reader with a state: an exception, even a ``MemoryError`` or Ctrl-C between two
    statements, may leave the state half changed, and a caller who catches it must not get
    something wrong from the next call. After an exception that is no ``Exception``, such as
    ``KeyboardInterrupt``, entering raises ``InvalidArgument`` instead: it was meant once.
    """

    def __init__(self) -> None:
        self._error: Exception | None = None

    @property
    def failed(self) -> bool:
        """Whether it has been left by an exception."""
        return self._error is not None

    def __enter__(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)  # else it would grow with every call

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            self._error = error
        elif error is not None:
            self._error = InvalidArgument(f"reading was interrupted by {type(error).__name__}: begin anew")
