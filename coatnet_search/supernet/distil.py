"""Distillation losses: the answers of a layout's largest network -> the loss of a smaller one.

Shapes: B images a batch, K classes; a mean over the batch. No gradient goes to the teacher.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHAS = (-1.0, 1.0)  # AlphaNet (Wang et al., arXiv 2102.07954), section 4: the larger of both is minimised
LARGEST_RATIO = 5.0  # of the probabilities' ratio to the power of alpha: clipped, or its variance ruins training


def kl_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy to the teacher's distribution, which is KL(teacher || student) up to what no student changes;
    (B, K), (B, K) -> ()."""
    return F.cross_entropy(logits, teacher.softmax(dim=1))


def binary_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """The same for classes that are told apart one by one (a sigmoid each), summed over classes."""
    losses = F.binary_cross_entropy_with_logits(logits, teacher.sigmoid(), reduction="none")
    return losses.sum(dim=1).mean()


def alpha_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """A loss with the gradient of the adaptive alpha-divergence: for each image the larger of the divergences of order
    -1, which punishes classes that the student sees and the teacher does not, and 1, which punishes the opposite.

    The value is that of the divergence.
    """
    log_q, log_p = logits.log_softmax(dim=1), teacher.log_softmax(dim=1)
    found = [_divergence(log_q, log_p, alpha) for alpha in ALPHAS]
    larger = found[0][0] > found[1][0]  # (B,)
    value = torch.where(larger, found[0][0], found[1][0])
    gradient = torch.where(larger, found[0][1], found[1][1])
    return (value + gradient - gradient.detach()).mean()


def _divergence(log_q: Tensor, log_p: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """(divergence, a term with its gradient), (B,) each, of D_alpha(p || q) = E_q[f(p/q)].

    f(r) = (r^alpha - 1) / (alpha (alpha - 1)), at alpha 1 its limit r log r. The gradient with respect to q is
    E_q[(f(r) - r f'(r)) grad log q] (constants vanish): -r^alpha / alpha.
    """
    q = log_q.detach().exp()
    ratio = (log_p - log_q.detach()).exp()
    power = (alpha * (log_p - log_q.detach())).exp().clamp(max=LARGEST_RATIO)
    if alpha == 1.0:
        value = (q * ratio * (log_p - log_q.detach())).sum(dim=1)
    else:
        value = (q * (power - 1)).sum(dim=1) / (alpha * (alpha - 1))
    return value, -(q * power / alpha * log_q).sum(dim=1)
