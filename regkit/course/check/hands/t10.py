"""Tutorial 10 by hand: local means, k-means, an adaptive kernel, a matching, one level of the pyramid, and cosines."""

import torch
import torch.nn.functional as F

from regkit import fields
from regkit.course.check.hands import by_hand

__all__ = [
    "adapt_by_hand",
    "cluster_by_hand",
    "compose_level",
    "cosine_scores",
    "local_means",
    "match_by_hand",
]

OFFSETS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def _features(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@by_hand(lambda: [(_features(0, 1, 2, 6, 9),)])
def local_means(features):
    """The mean of each place's 3 x 3 neighbourhood, zeros outside. features: (B, C, H, W); returns the same size."""
    padded = F.pad(features, [1, 1, 1, 1])
    return F.avg_pool2d(padded, 3, stride=1)


def _points():
    groups = 4 * torch.tensor([[0.0, 0.0], [1.0, 0.3], [0.2, 1.1]]).T.repeat_interleave(12, 1)
    points = groups + _features(1, 2, 36)
    return [(points, points[:, [0, 14, 25]].T, 1), (points, points[:, [0, 1, 25]].T, 4)]


@by_hand(_points)
def cluster_by_hand(points, centroids, iterations=50):
    """The cluster of each place, (places,), and the centroids, (N, features). points: (features, places)."""
    for _ in range(iterations):
        index = torch.cdist(points.T, centroids).argmin(1)
        centroids = torch.stack([points[:, index == n].mean(1) for n in range(len(centroids))])
    return index, centroids


def _features_and_kernels():
    index = torch.randint(0, 2, (5, 7), generator=torch.Generator().manual_seed(2))
    return [(_features(3, 1, 3, 5, 7), _features(4, 3, 3, 9), _features(5, 2, 9).sigmoid(), _features(6, 2, 3), index)]


@by_hand(_features_and_kernels)
def adapt_by_hand(p, W, a, b, index):
    """p: (1, in, H, W), W: (out, in, 9), a: (N, 9), b: (N, out), index: (H, W)."""
    height, width = index.shape
    padded = F.pad(p, [1, 1, 1, 1])
    y = b[index].permute(2, 0, 1)[None]
    for k, (i, j) in enumerate(OFFSETS):
        neighbour = padded[:, :, 1 + i : 1 + i + height, 1 + j : 1 + j + width]  # p(x + k)
        term = torch.einsum("oc,bchw->bohw", W[:, :, k], neighbour)
        y = y + a[index, k] * term
    return y


@by_hand(lambda: [(_features(7, 1, 4, 5, 7), _features(8, 1, 4, 5, 7))])
def match_by_hand(moving, fixed):
    """(B, C, H, W) each: the displacement (B, 2, H, W), less than one voxel along each axis."""
    height, width = fixed.shape[2:]
    padded = F.pad(moving, [1, 1, 1, 1])  # zeros outside
    views = [padded[:, :, 1 + i : 1 + i + height, 1 + j : 1 + j + width] for i, j in OFFSETS]
    scores = torch.stack([(fixed * view).sum(1) for view in views], 1)  # (B, 9, H, W)
    weights = scores.softmax(1)
    return torch.einsum("bkhw,kd->bdhw", weights, torch.tensor(OFFSETS).float())


@by_hand(lambda: [(_features(9, 1, 2, 4, 6), _features(10, 1, 2, 4, 6))])
def compose_level(reached, increment):
    """φ of this level, and the same on the next finer grid. Both: (B, 2, H, W), voxels of this level."""
    composed = fields.compose(reached, increment, padding="zeros")
    return composed, fields.upsample(composed, alignment="corners")


@by_hand(lambda: [(_features(11, 1, 4, 5, 7), _features(12, 1, 4, 5, 7), _one_place, 0.3)])
def cosine_scores(moving, fixed, scores, temperature=1.0):
    """Cosines over a temperature. moving, fixed: features, (B, C, H, W); scores: makes scalar products of two such."""
    directions = F.normalize(moving, dim=1), F.normalize(fixed, dim=1)
    return scores(*directions) / temperature


def _one_place(moving, fixed):
    """Scores of a place with itself and with its neighbour along axis 0."""
    return torch.stack([(fixed * view).sum(1) for view in (moving, moving.roll(1, 2))], 1)
