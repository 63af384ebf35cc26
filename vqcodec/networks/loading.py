"""Networks from model files, and the settings of PyTorch."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator

import torch

from vqcodec.errors import ModelError
from vqcodec.model.file import Model, restored, training_only
from vqcodec.networks.autoencoder import Autoencoder

_LOADED: weakref.WeakKeyDictionary[Model, dict[str, Autoencoder]] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def autoencoder(model: Model, device: str = "cpu") -> Autoencoder:
    """The autoencoder of a model on a device of torch, such as "cuda:0": made once.

    Raises :class:`~vqcodec.errors.ModelError` for tensors that do not fit the description.
    """
    with _LOCK:
        found = _LOADED.setdefault(model, {})
        if device not in found:
            found[device] = _built(model).to(device)
        return found[device]


def _built(model: Model) -> Autoencoder:
    config = model.config.autoencoder
    with torch.device("meta"):  # no memory, of which a description may ask for any amount
        module = Autoencoder(config)
    state = {name: torch.from_numpy(array) for name, array in restored(model.autoencoder_tensors).items()}
    expected = {name: value.shape for name, value in module.state_dict().items() if not training_only(name)}
    found = {name: value.shape for name, value in state.items()}
    if expected != found:
        wrong = min(set(expected.items()) ^ set(found.items()))
        raise ModelError(f"autoencoder: tensor {wrong[0]} {tuple(wrong[1])} does not fit the description")
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise ModelError("autoencoder: a tensor holds values that are not finite")
    module = Autoencoder(config)
    module.load_state_dict(state, strict=False)
    return module.eval().requires_grad_(False)


def use_threads(n: int | None) -> None:
    """Let PyTorch use ``n`` threads; None leaves it as it is."""
    if n is not None and torch.get_num_threads() != n:
        torch.set_num_threads(n)


def has_cuda() -> bool:
    return torch.cuda.is_available()


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Without gradients; a failed allocation, which torch reports as a RuntimeError, is a MemoryError."""
    try:
        with torch.inference_mode():
            yield
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "CUDA out of memory" in str(error):
            raise MemoryError("not enough memory for an image of this size") from error
        raise
