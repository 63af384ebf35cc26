"""CompressAI's decoders, in a separate process and environment: benchmarks.decode communicates with it through pipes.

    python compressai_peer.py WIDTH HEIGHT THREADS

Only needs `pip install compressai` (which installs its own PyTorch, and an older NumPy than
vqcodec needs). Prints a line of JSON with versions, then, for every input line with a model's name,
a line with the seconds of a whole decode and of the loop over positions alone. The models have
random weights, which does not affect the number of steps.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

warnings.simplefilter("ignore")

import compressai
import torch
from compressai import zoo


class Peer:
    def __init__(self, name: str, width: int, height: int) -> None:
        model = getattr(zoo, name)(quality=4, pretrained=False).eval()
        model.update(force=True)
        with torch.inference_mode():
            packed = model.compress(torch.rand(1, 3, -(-height // 64) * 64, -(-width // 64) * 64))
        self.model, self.strings, self.shape = model, packed["strings"], packed["shape"]
        self.loop = 0.0
        if hasattr(model, "_decompress_ar"):
            decompress_ar = model._decompress_ar

            def timed(*arguments: object, **more: object) -> object:
                start = time.perf_counter()
                result = decompress_ar(*arguments, **more)
                self.loop = time.perf_counter() - start
                return result

            model._decompress_ar = timed

    def decode(self) -> dict[str, float]:
        start = time.perf_counter()
        with torch.inference_mode():
            self.model.decompress(self.strings, self.shape)
        return {"whole": time.perf_counter() - start, "loop": self.loop}


def main() -> None:
    width, height, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    print(json.dumps({"compressai": compressai.__version__, "torch": torch.__version__}), flush=True)
    peers: dict[str, Peer] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in peers:
            peers[name] = Peer(name, width, height)
        print(json.dumps(peers[name].decode()), flush=True)


if __name__ == "__main__":
    main()
