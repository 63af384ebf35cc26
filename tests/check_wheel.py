"""Checks a built wheel: ``python tests/check_wheel.py FOLDER`` with one .whl and one .tar.gz in it (``make wheel``).

What it holds and links to; then tests/installed.py in a new environment, which has the dependencies of
this one but neither its vqcodec nor a compiler on PATH.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

#: 8 MB of weights, a picture, the core.
LARGEST = 9_000_000
NEEDED = {
    "vqcodec/__init__.py", "vqcodec/_native.pyi", "vqcodec/py.typed", "vqcodec/cli/__init__.py", "vqcodec/tools/data/photo.webp",
    "vqcodec/model/weights/default.safetensors", "vqcodec/model/weights/critic.safetensors",
}  # fmt: skip
#: Libraries that every Linux with glibc has. Anything else, such as CUDA's, must not be linked.
LIBRARIES = r"libc\.so|libm\.so|libstdc\+\+\.so|libgcc_s\.so|libpthread\.so|ld-linux[\w-]*\.so|libdl\.so|librt\.so"


def check_content(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names >= NEEDED, NEEDED - names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    core = [name for name in names if name.endswith((".so", ".pyd"))]
    assert len(core) == 1, core
    assert re.fullmatch(r"vqcodec/_native\..*", core[0]), core
    strange = {name for name in names if name.split("/")[0] not in ("vqcodec", wheel.name.rsplit("-", 3)[0] + ".dist-info")}
    strange |= {name for name in names if name.endswith((".cpp", ".h", ".cu", ".cuh", ".pyc"))}
    assert not strange, strange
    assert wheel.stat().st_size < LARGEST, wheel.stat().st_size


def check_links(wheel: Path, folder: Path) -> None:
    if sys.platform != "linux":
        return
    with zipfile.ZipFile(wheel) as archive:
        (core,) = (archive.extract(name, folder) for name in archive.namelist() if name.endswith(".so"))
    listed = subprocess.run(["readelf", "-d", core], capture_output=True, text=True, check=True).stdout
    linked = re.findall(r"\(NEEDED\).*\[(.*)\]", listed)
    assert linked
    assert not [name for name in linked if not re.match(LIBRARIES, name)], linked
    assert "(RPATH)" not in listed
    assert "(RUNPATH)" not in listed


def check_installed(wheel: Path, folder: Path) -> None:
    venv.create(folder / "venv", with_pip=False)
    programs = folder / "venv" / "bin"
    packages = Path(subprocess.run([programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                                   capture_output=True, text=True, check=True).stdout.strip())
    subprocess.run([sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet", "--no-deps", "--no-index",
                    wheel], check=True)
    # The folder of an editable install is added by a .pth file in this one, which is not read from there.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VQCODEC"))}
    done = subprocess.run([programs / "python", Path(__file__).with_name("installed.py")], cwd=folder, check=True,
                          env={**environment, "PATH": str(programs)}, capture_output=True, text=True)
    assert str(packages) in done.stdout, done.stdout
    print(done.stdout, end="")


def main(folder: Path) -> None:
    (wheel,) = folder.resolve().glob("*.whl")
    assert len(list(folder.glob("*.tar.gz"))) == 1
    check_content(wheel)
    with tempfile.TemporaryDirectory() as temporary:
        check_links(wheel, Path(temporary))
        check_installed(wheel, Path(temporary))
    print(f"{wheel.name}: {wheel.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
