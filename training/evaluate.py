"""Measure a model as section 5 of VQ-VAE-2 does: ``python -m training.evaluate MODEL --data ROOT``.

    nll             what the priors make of the codes, per map and quality, training and validation (table 1)
    reconstruction  MSE, PSNR, MS-SSIM and file size per quality, training and validation (table 1)
    samples         Frechet distance, Inception-style score, precision and recall, classification
                    accuracy score of samples, before and after the classifier (figure 7, table 2)

Tables go to standard output, progress to standard error. The same arguments give the same codes;
figures that pass through a float network may differ in the last digits between machines.

Sample figures carry the name of the feature network and can only be compared with figures of the
same network, the same pictures and the same N: every set has N pictures, and few make the Frechet
distance large. So the table begins with what N training pictures score: samples can hardly do better.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from training import data, features, metrics
from training.data import Crops
from training.features import FeatureNetwork
from vqcodec import ops
from vqcodec.codec.classifier import Classifier as IntegerScores
from vqcodec.codec.codec import Codec
from vqcodec.codec.images import RasterImage, psnr
from vqcodec.codec.options import check_quality
from vqcodec.codec.sampler import SAMPLE_QUALITY, Classifier, best_first
from vqcodec.errors import InvalidArgument, VqcodecError
from vqcodec.model.classifier import load as load_classifier

SECTIONS = ("nll", "reconstruction", "samples")
SPLITS = ("train", "val")
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
        ops.cpu.set_num_threads(args.threads)
    try:
        found = evaluate(args)
    except VqcodecError as error:
        raise SystemExit(str(error)) from error
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="model file, or 'default' for the shipped one")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="ROOT", help="folder of pictures, see training/data.py"
    )
    parser.add_argument(
        "--only", default=",".join(SECTIONS), metavar="LIST", help=f"sections (default: {','.join(SECTIONS)})"
    )
    parser.add_argument(
        "--qualities",
        type=qualities,
        default=[10, 50, 90],
        metavar="LIST",
        help="for nll and reconstruction (default: 10,50,90)",
    )
    parser.add_argument(
        "--pictures", type=int, default=200, metavar="N", help="of each split, for nll and reconstruction"
    )
    parser.add_argument("--samples", type=int, default=256, metavar="N", help="in every set of the section samples")
    parser.add_argument("--size", type=int, default=256, help="side of all pictures, in pixels (default: 256)")
    parser.add_argument(
        "--features",
        default="efficientnet-lite0",
        metavar="NETWORK",
        help="efficientnet-lite0 (default), inception:WEIGHTS or MODULE:FUNCTION, see training/features.py",
    )
    parser.add_argument(
        "--classifier", type=Path, metavar="FILE", help="classifier that rejects samples (default: the shipped one)"
    )
    parser.add_argument(
        "--candidates", type=int, default=4, metavar="M", help="drawn for each sample that the classifier keeps"
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--grids", type=Path, metavar="FOLDER", help="write samples there: before.png, after.png")
    parser.add_argument("--device", default="cpu", help="for the codec: cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads of this process (default: all cores)")
    args = parser.parse_args(argv)
    args.only = args.only.split(",")
    if not set(args.only) <= set(SECTIONS):
        parser.error(f"--only takes a list of {', '.join(SECTIONS)}, got {','.join(args.only)}")
    for name, least in (("pictures", 1), ("samples", 4), ("candidates", 1), ("size", 1), ("seed", 0)):
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(args, name)}")
    return args


def qualities(text: str) -> list[float]:
    return [check_quality("quality", float(q)) for q in text.split(",")]


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """All figures, printed section by section."""
    codec = Codec(None if args.model == "default" else args.model, device=args.device)
    found: dict[str, Any] = {"model": codec.model.name, "fingerprint": codec.model.fingerprint.hex(), "seed": args.seed}
    if {"nll", "reconstruction"} & set(args.only):
        crops = {split: data.evenly(args.data, split, args.pictures, crop=args.size) for split in SPLITS}
        found["pictures"] = {split: len(c.labels) for split, c in crops.items()}
    if "nll" in args.only:
        found["nll"] = [row for q in args.qualities for row in nll(codec, crops, q)]
        show("Negative log-likelihood of the codes, class known", found["nll"])
    if "reconstruction" in args.only:
        found["reconstruction"] = [
            reconstruction(codec, crops[split], split, q) for q in args.qualities for split in SPLITS
        ]
        show("Reconstruction", found["reconstruction"])
    if "samples" in args.only:
        network = features.load(args.features)
        rows = samples(codec, network, args)
        found["samples"] = {"features": network.name, "sets": rows}
        show(f"Samples, by the features of {network.name}", rows)
        print(
            "frechet, precision and recall are against validation pictures, frechet* against their reconstructions;\n"
            "cas: a linear classifier on the features of this set, tested on validation pictures; cas*: on their\n"
            "reconstructions. These figures compare with no other network's."
        )
    return found


# -- stage 2: negative log-likelihood ----------------------------------------------------------


def nll(codec: Codec, crops: dict[str, Crops], quality: float) -> list[Row]:
    """A row for each map, and one for all: nats and bits per code of the integer prior that codes files.

    ``uniform`` is log2 K; ``zero_order`` the entropy of the validation codes' histogram, which needs
    no context; ``saved`` what the prior takes off it, in percent.
    """
    maps = codec.model.config.autoencoder.maps
    bits, zero = {}, {}
    for split, some in crops.items():
        bits[split], zero[split] = code_lengths(codec, some, quality, split)
    share = np.array([1 / m.stride**2 for m in maps])  # codes per pixel
    uniform = np.array([math.log2(m.codes) for m in maps])

    def row(name: str, unit: str, weights: np.ndarray) -> Row:
        values = {split: float(b @ weights) for split, b in bits.items()}
        entropy = float(zero["val"] @ weights)
        return {
            "quality": quality,
            "map": name,
            "per": unit,
            "uniform": float(uniform @ weights),
            "zero_order": entropy,
            **{f"{split}_bits": value for split, value in values.items()},
            **{f"{split}_nats": value * math.log(2) for split, value in values.items()},
            "saved": 100 * (1 - values["val"] / entropy) if entropy else 0.0,
        }

    return [*(row(str(m), "code", np.eye(len(maps))[m]) for m in range(len(maps))), row("all", "pixel", share)]


def code_lengths(codec: Codec, crops: Crops, quality: float, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Bits per code under the prior and zero-order entropy, of every map."""
    model = codec.model
    auto = model.config.autoencoder
    level = auto.level(auto.position(quality))
    bits, count = np.zeros(len(auto.maps)), np.zeros(len(auto.maps))
    histograms = [np.zeros(m.codes) for m in auto.maps]
    for i, (pixels, number) in enumerate(zip(crops.pixels, class_numbers(codec, crops))):
        progress(f"nll, quality {quality:g}, {split}", i, len(crops.pixels))
        maps = codec.encode_maps(pixels, quality)
        for m, codes in enumerate(maps):
            _, frequency = ops.prior_frequencies(model.priors[m], codes, maps[:m], (number, level))
            bits[m] += 24 * codes.size - np.log2(frequency).sum()
            count[m] += codes.size
            histograms[m] += np.bincount(codes.ravel(), minlength=auto.maps[m].codes)
    shares = [h[h > 0] / h.sum() for h in histograms]
    return bits / count, np.array([-(p * np.log2(p)).sum() for p in shares])


# -- stage 1: reconstruction -------------------------------------------------------------------


def reconstruction(codec: Codec, crops: Crops, split: str, quality: float) -> Row:
    """Means over pictures: file size in bits per pixel, MSE (white is 1), PSNR, MS-SSIM (176 pixels and up)."""
    found: dict[str, list[float]] = {"bpp": [], "mse": [], "psnr": [], "ms_ssim": []}
    for i, pixels in enumerate(crops.pixels):
        progress(f"reconstruction, quality {quality:g}, {split}", i, len(crops.pixels))
        height, width = pixels.shape[:2]
        maps = codec.encode_maps(pixels, quality)
        back = codec.decode_pixels(maps, height, width)
        found["bpp"].append(8 * len(codec.write(maps, height, width, quality=quality)) / (height * width))
        found["mse"].append(metrics.mse(pixels, back))
        found["psnr"].append(psnr(pixels, back))
        if min(height, width) >= 176:
            found["ms_ssim"].append(metrics.ms_ssim(pixels, back))
    return {"quality": quality, "split": split, **{name: float(np.mean(v)) if v else None for name, v in found.items()}}


# -- samples -----------------------------------------------------------------------------------


def samples(codec: Codec, network: FeatureNetwork, args: argparse.Namespace) -> list[Row]:
    """A row for each set of N pictures: training pictures, their reconstructions, samples, samples that the classifier kept.

    Samples have the classes of the validation pictures.
    """
    train, val = (data.evenly(args.data, split, args.samples, crop=args.size) for split in SPLITS)
    val_numbers = class_numbers(codec, val)
    before, after = draw(codec, val_numbers, args)
    describe = described(network)
    real, restored = (
        describe(val.pixels, "validation pictures")[0],
        describe(reconstructed(codec, val), "their reconstructions")[0],
    )
    rows = []
    sets = [
        ("training pictures", train.pixels, class_numbers(codec, train)),
        ("their reconstructions", reconstructed(codec, train), class_numbers(codec, train)),
        ("samples", before, val_numbers),
    ]
    if after is not None:
        sets.append((f"samples, best 1 of {args.candidates}", after, val_numbers))
    for name, pixels, numbers in sets:
        found, probabilities = describe(pixels, name)
        score, deviation = metrics.inception_score(probabilities, splits=max(1, min(10, len(pixels) // 50)))
        precision, recall = metrics.precision_recall(real, found)
        accuracy = [
            metrics.classification_accuracy(found, numbers, test, val_numbers)
            if len(set(val_numbers.tolist())) > 1
            else None
            for test in (real, restored)
        ]
        rows.append(
            {
                "set": name,
                "n": len(pixels),
                "frechet": metrics.frechet_distance(found, real),
                "frechet*": metrics.frechet_distance(found, restored),
                "is_style": score,
                "deviation": deviation,
                "precision": precision,
                "recall": recall,
                "cas": accuracy[0],
                "cas*": accuracy[1],
            }
        )
    return rows


def draw(codec: Codec, numbers: np.ndarray, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray | None]:
    """A sample for each class number: as they come, and (if there is a classifier for these classes) the best of several."""
    classifier = classifier_for(codec, args.classifier)
    times = args.candidates if classifier else 1
    before = np.zeros((len(numbers), args.size, args.size, 3), np.uint8)
    after = np.zeros_like(before)
    grids: dict[str, dict[str, list[np.ndarray]]] = {"before": {}, "after": {}}
    for number in sorted(set(numbers.tolist())):
        progress("sampling, class", number, max(numbers))
        places = np.flatnonzero(numbers == number)
        drawn: list[RasterImage] = codec.sample(
            number,
            times * len(places),
            size=(args.size, args.size),
            seed=args.seed + (number << 32),
            temperature=args.temperature,
        )
        order = best_first(drawn, number, classifier) if classifier and number else range(len(drawn))
        before[places] = [picture.pixels for picture in drawn[: len(places)]]
        after[places] = [drawn[i].pixels for i in order[: len(places)]]
        name = codec.model.config.classes[number - 1] if number else "no class"
        grids["before"][name], grids["after"][name] = list(before[places][:8]), list(after[places][:8])
    if args.grids:
        args.grids.mkdir(parents=True, exist_ok=True)
        for name, rows in grids.items():
            if classifier or name == "before":
                grid(rows).save(args.grids / f"{name}.png")
    return before, after if classifier else None


def classifier_for(codec: Codec, path: Path | None) -> Classifier | None:
    """The classifier in a file, or the shipped one; None, with a note, if there is none for the model's classes."""
    if path is None:
        try:
            return codec.classifier(1)
        except InvalidArgument as error:
            say(f"no rejection: {error}")
            return None
    found = IntegerScores(load_classifier(path))
    if found.classes != codec.model.config.classes:
        raise InvalidArgument(f"--classifier {path.name}: its classes are not those of the model")
    return found


def reconstructed(codec: Codec, crops: Crops) -> np.ndarray:
    """The pictures after a round trip at the quality that samples have."""
    back = np.zeros_like(crops.pixels)
    for i, pixels in enumerate(crops.pixels):
        progress("reconstructing", i, len(back))
        back[i] = codec.decode_pixels(codec.encode_maps(pixels, SAMPLE_QUALITY), *pixels.shape[:2])
    return back


def described(network: FeatureNetwork) -> Callable[[np.ndarray, str], tuple[np.ndarray, np.ndarray]]:
    """``network.describe`` in parts, with progress."""

    def describe(pixels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for i in range(0, len(pixels), 32):
            progress(f"features of {name}", i, len(pixels))
            parts.append(network.describe(pixels[i : i + 32]))
        found, probabilities = zip(*parts)
        return np.concatenate(found), np.concatenate(probabilities)

    return describe


def grid(rows: dict[str, list[np.ndarray]], side: int = 128, label: int = 160) -> Image.Image:
    """Named rows of pictures."""
    columns = max(len(pictures) for pictures in rows.values())
    sheet = Image.new("RGB", (label + columns * (side + 2), len(rows) * (side + 2)), "white")
    text = ImageDraw.Draw(sheet)
    for r, (name, pictures) in enumerate(rows.items()):
        text.text((6, r * (side + 2) + side // 2 - 6), name, fill="black")
        for c, pixels in enumerate(pictures):
            sheet.paste(
                Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS),
                (label + c * (side + 2), r * (side + 2)),
            )
    return sheet


# -- helpers -----------------------------------------------------------------------------------


def class_numbers(codec: Codec, crops: Crops) -> np.ndarray:
    """The model's number for the class of each crop; 0 for a class that it does not know."""
    known = codec.model.config.classes
    numbers = [0, *(known.index(name) + 1 if name in known else 0 for name in crops.classes)]
    return np.array(numbers)[crops.labels]


def show(title: str, rows: list[Row]) -> None:
    """Print rows of equal keys as a table."""
    lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    print(f"\n{title}")
    for line in lines:
        print(
            "  ".join(
                text.ljust(w) if isinstance(value, str) else text.rjust(w)
                for text, w, value in zip(line, widths, rows[0].values())
            ).rstrip(),
            flush=True,
        )


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5f}" if abs(value) < 0.1 and value else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    return "-" if value is None else str(value)


def progress(text: str, i: int, n: int) -> None:
    if i % 32 == 0:
        say(f"{text}: {i} of {n}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
