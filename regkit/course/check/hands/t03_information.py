"""Tutorial 03 by hand: mutual information of a joint histogram."""

import torch

from regkit.course.check.hands import by_hand

__all__ = ["information_by_hand"]


def _histograms():
    """Two joint histograms: of 6 bins by 6 with bins that nothing meets, and of one value that predicts the other."""
    counts = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [2], [0], [3], [1], [1]]
    )
    return [(counts / counts.sum(),), (torch.eye(4).flip(0) / 4,)]


@by_hand(
    "Write the three lines: the histograms of both images, and the sum over the bins.",
    praise="0 where the values have nothing to do with each other, and large where one predicts the other.",
    calls=_histograms,
    mistakes={
        "one histogram": (
            "p.sum(1, keepdim=True), p.sum(0, keepdim=True)",
            "p.sum(1, keepdim=True), p.sum(1, keepdim=True)",
            "both sums are over the same axis: p_a is the sum over columns (dim 1), p_b over rows (dim 0).",
        ),
        "not kept": (
            "p.sum(1, keepdim=True), p.sum(0, keepdim=True)",
            "p.sum(1), p.sum(0)",
            "without keepdim=True p_a is no column: p_a * p_b multiplies value by value, and gives no table.",
        ),
        "a loss": ("return (", "return -(", "the sign is turned around: I is positive here. The loss is -I."),
        "upside down": ("p / (p_a * p_b)", "p_a * p_b / p", "the fraction is upside down: p is above."),
        "not weighted": ("(p * torch.log", "(torch.log", "each bin counts as often as it is met: multiply by p."),
        "empty bins": ("[p > 0].sum()", ".sum()", "0 · log 0 gives NaN. Sum only over the bins with p > 0."),
        "a mean": ("[p > 0].sum()", "[p > 0].mean()", "this is a mean over the bins. p is a share already: sum."),
    },
    otherwise="sum p log(p / (p_a p_b)) over the bins where p is above 0.",
)
def information_by_hand(p):
    """I of a joint histogram p, (bins, bins), one number in nats. A bin that nothing meets counts 0."""
    p_a, p_b = p.sum(1, keepdim=True), p.sum(0, keepdim=True)
    return (p * torch.log(p / (p_a * p_b)))[p > 0].sum()
