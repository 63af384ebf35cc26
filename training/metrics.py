"""What pictures and samples are measured by. Pure functions of arrays; the numbers mean what the
named papers say, for whichever feature network the features come from.

The Frechet distance, precision and recall, and the Inception-style score are written out here:
the ones of torchmetrics and torch-fidelity are bound to batches of an Inception network that is
downloaded, and the former takes the root of a singular product of covariances when there are
fewer pictures than features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from vqcodec.tools import compare

# -- pictures against pictures: uint8, H x W x 3 ---------------------------------------------


def mse(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared error of two pictures, on a scale where white is 1 (table 1 of VQ-VAE-2)."""
    return float(np.mean(((a.astype(np.float64) - b) / 255) ** 2))


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003), mean of the RGB channels.

    Five scales and a window of 11 pixels: ValueError unless both sides are at least 176.
    """
    try:
        return compare.ms_ssim(a, b)
    except ImportError as error:
        raise SystemExit(str(error)) from error


# -- samples against pictures: features, N x D -----------------------------------------------


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the Gaussians of two sets (Heusel et al. 2017, who call it FID with Inception features).

        |mu_a - mu_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    With S_a = A'A and S_b = B'B, the trace of the root is the sum of the singular values of A B',
    for S_a S_b and (A B')(A B')' have the same eigenvalues but for zeros. So no root of a matrix is
    taken, and fewer pictures than features do no harm to the arithmetic. They do bias the distance
    upwards: compare only sets of equal sizes.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("a covariance needs at least two pictures")
    x, y = (torch.from_numpy(np.asarray(features, np.float64)) for features in (a, b))
    r, q = (torch.linalg.qr((f - f.mean(0)) / (len(f) - 1) ** 0.5, mode="r")[1] for f in (x, y))  # S = r'r, however many rows
    distance = (x.mean(0) - y.mean(0)).square().sum() + r.square().sum() + q.square().sum() - 2 * torch.linalg.svdvals(r @ q.T).sum()
    return max(float(distance), 0.0)


def inception_score(probabilities: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """exp(E KL(p(y|x) | p(y))) of class probabilities N x classes: mean and deviation over ``splits``.

    Salimans et al. 2016. From 1 (all alike) to the number of classes. p(y) is that of the split;
    picture i is in split i mod ``splits``, so that samples in order of class are spread evenly.
    """
    p = np.asarray(probabilities, np.float64)
    scores = []
    for part in (p[i::splits] for i in range(min(splits, len(p)))):
        ratio = np.log(np.maximum(part, 1e-30)) - np.log(np.maximum(part.mean(0), 1e-30))
        scores.append(np.exp((part * ratio).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019).

    A set's manifold is the union of balls around its points, each as wide as the distance to its
    k-th nearest neighbour in the set. Precision: the share of ``generated`` inside the manifold of
    ``real``; recall: the share of ``real`` inside that of ``generated``.
    """
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"{k} neighbours need more than {k} pictures")

    def inside(points: np.ndarray, others: np.ndarray) -> float:
        # The nearest of all is the point itself, at distance 0.
        radii = np.concatenate([np.partition(d, k, axis=1)[:, k] for d in distances(others, others)])
        return float(np.concatenate([(d <= radii).any(1) for d in distances(points, others)]).mean())

    return inside(generated, real), inside(real, generated)


def distances(a: np.ndarray, b: np.ndarray, chunk: int = 256) -> Iterator[np.ndarray]:
    """Euclidean distances, N x M in chunks of rows; exactly 0 for equal rows."""
    x, y = (torch.from_numpy(np.asarray(points, np.float64)) for points in (a, b))
    for part in x.split(chunk):
        yield torch.cdist(part, y, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def classification_accuracy(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray,
                            *, decay: float = 1e-2) -> float:
    """Accuracy on the test set of a classifier trained on ``features``: share of correct answers.

    The Classification Accuracy Score of Ravuri and Vinyals (2019) when trained on samples and
    tested on real pictures. They train a ResNet-50 from scratch on 1.3 million samples; for
    hundreds, this is a linear classifier on a feature network: multinomial logistic regression on
    standardised features, ``decay`` / 2 * |weights|^2 added to the mean loss, L-BFGS from zero.
    """
    mean, scale = features.mean(0), features.std(0) + 1e-6
    x, test = (torch.from_numpy(np.asarray((f - mean) / scale, np.float32)) for f in (features, test_features))
    y = torch.from_numpy(np.asarray(labels, np.int64))
    count = int(max(labels.max(), test_labels.max())) + 1
    weight = torch.zeros(x.shape[1], count, requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight + bias, y) + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        found = (test @ weight + bias).argmax(1).numpy()
    return float((found == test_labels).mean())
