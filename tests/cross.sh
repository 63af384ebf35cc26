#!/usr/bin/env bash
# The compiled core on other processors: built by a cross compiler, run by QEMU's user mode.
#
#     tests/cross.sh aarch64|s390x...     (s390x: big-endian)
#
# Runs the C++ tests, the inputs of the fuzz targets, and installed.py under the other processor's Python.
# Needs Debian with g++-aarch64-linux-gnu, g++-s390x-linux-gnu, qemu-user, unzip, cmake and pybind11; Python and
# what it needs there are unpacked below build/cross, the system stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

# A folder with the target's Python, its headers and what vqcodec needs to decode code maps.
unpack() { # Debian's name, folder
    local state=$2.apt options
    mkdir -p "$state/lists/partial" "$state/archives/partial" "$2"
    : >"$state/status"
    options=(-qq -o "Dir::State=$state" -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status"
        -o "Dir::Cache=$state" -o "Dir::Cache::archives=$state/archives" -o "APT::Architecture=$1"
        -o "APT::Architectures=$1" -o "Debug::NoLocking=1" -o "APT::Sandbox::User=$(id -un)")
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install --yes --download-only --no-install-recommends python3-minimal python3-numpy python3-pil libpython3-dev libstdc++6
    for package in "$state"/archives/*.deb; do dpkg -x "$package" "$2"; done
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --platform "manylinux2014_$target" --dest "$state" safetensors
    unzip -q "$state"/safetensors-*.whl -d "$2/packages"
}

for target in "$@"; do
    debian=${target/aarch64/arm64}
    triplet=$target-linux-gnu
    build=$PWD/build/cross/$target
    root=$build/root
    [ -d "$root/packages" ] || unpack "$debian" "$root"
    version=$(basename "$(readlink "$root/usr/bin/python3")")

    cmake -S . -B "$build" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR="$target" \
        -DCMAKE_CXX_COMPILER="$triplet-g++" -DCMAKE_CXX_FLAGS="-isystem $root/usr/include" \
        -DVQCODEC_CUDA=off -DVQCODEC_TESTS=ON -DVQCODEC_FUZZ=ON -DPython_EXECUTABLE="$(command -v "$python")" \
        -DPython_INCLUDE_DIR="$root/usr/include/$version" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)"
    cmake --build "$build" --parallel

    # QEMU 7 loses the child of a process with threads, so that fork() is not tested.
    run=("qemu-$target" -L "/usr/$triplet")
    for group in prior_ kernels_ integer_network_ range_ frequency_table wavefront_order nearest_codebook instruction_set; do "${run[@]}" "$build/vqcodec_tests" "$group"; done
    for name in integer_network prior_network range_decoder wavefront; do
        "${run[@]}" "$build/fuzz_$name" "tests/fuzz/corpus/$name"
    done

    mkdir -p "$build/package"
    cp -r vqcodec "$build/package"
    rm -f "$build"/package/vqcodec/_native*.so
    cp "$build"/_native*.so "$build/package/vqcodec/_native.so"
    libraries=/usr/lib/$triplet
    PYTHONPATH=$build/package:$root/packages LD_LIBRARY_PATH=$libraries/blas:$libraries/lapack \
        "qemu-$target" -L "$root" "$root/usr/bin/$version" tests/installed.py --maps-only
done
