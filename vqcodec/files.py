"""Files that appear whole or not at all, and standard streams under the name ``-``."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TextIO

STANDARD = "-"


def read(path: str) -> bytes:
    """The content of a file, or of standard input. Raises ``OSError``."""
    return _open_stream(sys.stdin, "input").buffer.read() if path == STANDARD else Path(path).read_bytes()


def check_new(path: str, force: bool) -> None:
    """Raise ``OSError`` if ``write`` would refuse, to say so before the work begins."""
    if path == STANDARD:
        if _open_stream(sys.stdout, "output").isatty():
            raise FileExistsError("standard output is a terminal: name a file, or redirect it")
    elif not force and os.path.lexists(path) and not _is_device(path):
        raise FileExistsError(f"{path} exists: use -f to overwrite it")
    elif not os.access(Path(path).parent, os.W_OK | os.X_OK):
        raise FileNotFoundError(f"{path}: its folder does not exist or cannot be written to")


def write(path: str, data: bytes, force: bool = False) -> None:
    """Write a file under another name in the same folder, then rename it.

    So nothing half-written is ever seen, whatever interrupts. Without ``force`` an existing
    file is never replaced, even one that appeared in the meantime. Raises ``OSError``.
    """
    if path == STANDARD:
        stream = _open_stream(sys.stdout, "output").buffer
        stream.write(data)
        stream.flush()
        return
    if _is_device(path):  # /dev/null, a pipe: nothing to rename
        Path(path).write_bytes(data)
        return
    target = Path(path)
    target = target.resolve() if target.is_symlink() else target
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        if force:
            os.replace(temporary, target)
        else:
            _rename_new(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _rename_new(source: str, target: Path) -> None:
    """Rename, but fail if the target exists."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise FileExistsError(f"{target} exists: use -f to overwrite it") from None
    except OSError:  # a file system without hard links: the next best
        check_new(str(target), force=False)
        os.replace(source, target)


def _open_stream(stream: TextIO | None, name: str) -> TextIO:
    if stream is None:  # closed by the shell: `>&-`
        raise OSError(errno.EBADF, f"standard {name} is closed")
    return stream


def _is_device(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path)
    except OSError:
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
