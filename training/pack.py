"""Pack a folder of training pictures into one file of a given size, to train on another machine:

    python -m training.pack ROOT pictures.zip --megabytes 55
    python -m training RECIPE --data pictures.zip --work DIR --minutes 10

The file holds the folders of ROOT (training/data.py) with every picture as AVIF 4:4:4, at the highest quality with
which all of them fit, and large ones reduced. Names stay, suffixes included: they decide what is kept out of training.
"""

from __future__ import annotations

import argparse
import io
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from PIL import Image

from training.data import pictures

#: Qualities that are tried, and how many pictures tell how large all of them will be.
QUALITIES = (95, 90, 85, 80, 75, 70, 65, 60, 55, 50, 45, 40, 35, 30)
SAMPLES = 96
#: The sample may be smaller than the rest.
MARGIN = 0.95


def pack(root: Path, out: Path, megabytes: float, largest: int = 1024) -> int:
    """Write ``out``; returns the quality. ``largest``: the long side of a picture, in pixels.

    Ends the program if there are no pictures, or too many for the size.
    """
    files = pictures(root)
    if not files:
        raise SystemExit(f"{root}: no pictures found")
    limit = megabytes * 1e6
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def encoded(part: Sequence[Path], quality: int) -> list[bytes]:
            return list(pool.map(lambda file: _avif(file, quality, largest), part))

        sample = files[:: -(-len(files) // SAMPLES)]
        for quality in QUALITIES:
            expected = sum(map(len, encoded(sample, quality))) * len(files) / len(sample)
            if expected <= MARGIN * limit:
                break
        else:
            raise SystemExit(
                f"{len(files)} pictures need {expected / 1e6:.1f} MB at quality {quality}, more than {megabytes:g}"
            )
        temporary = out.with_suffix(".partial")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            left = iter(files)
            while part := list(islice(left, 64)):
                for file, data in zip(part, encoded(part, quality)):
                    if data:
                        archive.writestr(file.relative_to(root).as_posix(), data)
    if temporary.stat().st_size > limit:
        temporary.unlink()
        raise SystemExit(f"the pictures turned out larger than {megabytes:g} MB: ask for a smaller file")
    os.replace(temporary, out)
    return quality


def unpacked(path: Path, work: Path) -> Path:
    """The folder of pictures at ``path``: a folder, or a packed file, which is unpacked below ``work`` once."""
    if not path.is_file():
        return path
    folder = work / f"pictures-{path.stem}-{path.stat().st_size}"
    if not folder.exists():
        temporary = folder.with_suffix(".partial")
        with zipfile.ZipFile(path) as archive:
            archive.extractall(temporary)
        os.replace(temporary, folder)
    return folder


def _avif(file: Path, quality: int, largest: int) -> bytes:
    """Nothing if the file is not a picture."""
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return b""
    image.thumbnail((largest, largest), Image.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "AVIF", quality=quality, subsampling="4:4:4", speed=8)
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.pack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of pictures, see training/data.py")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--megabytes", type=float, default=55, help="size of the file, at most (default: 55)")
    args = parser.parse_args()
    quality = pack(args.root, args.out, args.megabytes)
    print(f"wrote {args.out}: {args.out.stat().st_size / 1e6:.1f} MB, quality {quality}")


if __name__ == "__main__":
    main()
