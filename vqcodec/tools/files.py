"""Files that appear complete or not at all, and standard streams under the name ``-``."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TextIO

STANDARD = "-"
#: What goes into a file: bytes, or a function that writes them to it piece by piece.
Content = bytes | Callable[[BinaryIO], object]


def read(path: str) -> bytes:
    """The content of a file, or of standard input. Raises ``OSError``."""
    return _open_stream(sys.stdin, "input").buffer.read() if path == STANDARD else Path(path).read_bytes()


def check_new(path: str, force: bool) -> None:
    """Raise ``OSError`` if ``write`` would fail, before the work begins."""
    if path == STANDARD:
        if _open_stream(sys.stdout, "output").isatty():
            raise FileExistsError("standard output is a terminal: name a file, or redirect it")
    elif not force and os.path.lexists(path) and not is_device(path):
        raise FileExistsError(f"{path} exists: use -f to overwrite it")
    elif not os.access(_target(path).parent, os.W_OK | os.X_OK):
        raise FileNotFoundError(f"{path}: its folder does not exist or cannot be written to")


def held(content: Content) -> bytes:
    """The bytes of a content."""
    if isinstance(content, bytes):
        return content
    stream = io.BytesIO()
    content(stream)
    return stream.getvalue()


def write(path: str, content: Content, force: bool = False) -> None:
    """Write a file under a temporary name in the same folder, then rename it.

    So nothing half-written is ever visible, even after an interruption. Without ``force`` an existing
    file is never replaced, even one that appeared in the meantime. Raises ``OSError``.
    """
    if path == STANDARD:
        stream = _open_stream(sys.stdout, "output").buffer
        stream.write(held(content))
        stream.flush()
        return
    if is_device(path):  # /dev/null, a pipe: cannot be renamed, and cannot seek
        Path(path).write_bytes(held(content))
        return
    temporary = temporary_name(path)
    try:
        write_temporary(temporary, content)
        publish(temporary, path, force)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def temporary_name(path: str) -> str:
    """A new hidden name in the folder of the file that ``path`` refers to, following links."""
    target = _target(path)
    return str(target.parent / f".{target.name[:40]}.{secrets.token_hex(6)}.part")


def write_temporary(temporary: str, content: Content) -> None:
    """Write a new file and flush it to disk. Raises ``OSError``, and whatever ``content`` raises.

    A file that a killed attempt left under this name is replaced.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    with open(temporary, "x+b") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            content(file)
        file.flush()
        os.fsync(file.fileno())


def publish(temporary: str, path: str, force: bool = False) -> None:
    """Give a finished temporary file its name. Raises ``FileExistsError``, without ``force``.

    With ``force`` a file that is replaced keeps its permissions, and a link its place.
    """
    if not force:
        _rename_new(temporary, Path(path))  # a link is something that exists, wherever it leads
        return
    target = _target(path)
    with contextlib.suppress(FileNotFoundError):
        os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
    os.replace(temporary, target)


def _target(path: str) -> Path:
    target = Path(path)
    if not target.is_symlink():
        return target
    with contextlib.suppress(FileNotFoundError):
        os.stat(path)  # OSError if the links form a loop
    return target.resolve()


def _rename_new(source: str, target: Path) -> None:
    """Rename, but fail if the target exists."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise FileExistsError(f"{target} exists: use -f to overwrite it") from None
    except OSError:  # a file system without hard links: the next best thing
        check_new(str(target), force=False)
        os.replace(source, target)


def _open_stream(stream: TextIO | None, name: str) -> TextIO:
    if stream is None:  # closed by the shell: `>&-`
        raise OSError(errno.EBADF, f"standard {name} is closed")
    return stream


def is_device(path: str) -> bool:
    """Whether ``path`` is a device or a pipe: nothing that a rename could replace."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path)
    except OSError:
        return False
