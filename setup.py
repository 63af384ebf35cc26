"""Builds the compiled core with CMake; all metadata is in pyproject.toml.

Environment:
    VQCODEC_CUDA   auto (default) | on | off: compile the CUDA kernels
    VQCODEC_BUILD_TYPE   Release (default) | RelWithDebInfo | Debug
    CMAKE_ARGS     further arguments for CMake
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
MINIMUM_CMAKE = (3, 20)


def cmake_requirement() -> list[str]:
    """What to install to have a CMake: nothing where a usable one is on PATH."""
    try:
        banner = subprocess.run(["cmake", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        banner = ""
    found = re.search(r"version (\d+)\.(\d+)", banner)
    if found and (int(found[1]), int(found[2])) >= MINIMUM_CMAKE:
        return []
    return ["cmake>={}.{}".format(*MINIMUM_CMAKE), "ninja"]


class CMakeBuild(build_ext):
    """Lets CMake put the extension where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = ROOT / "build" / sys.implementation.cache_tag
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build),
            f"-DCMAKE_BUILD_TYPE={os.environ.get('VQCODEC_BUILD_TYPE', 'Release')}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target.parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DVQCODEC_CUDA={os.environ.get('VQCODEC_CUDA', 'auto')}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        if shutil.which("ninja") and not (build / "CMakeCache.txt").exists():
            configure += ["-G", "Ninja"]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", "_native", "--parallel"], check=True)


setup(
    ext_modules=[Extension("vqcodec._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
    setup_requires=cmake_requirement(),
)
