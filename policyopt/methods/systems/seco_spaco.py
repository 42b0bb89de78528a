"""SeCO and SpaCO."""

from __future__ import annotations

from typing import Literal

from policyopt.models.chunked import Chunks
from policyopt.registry import guide


@guide(
    arxiv="2505.16710",
    code="wenhaoli-xmu/seco",
    confidence="code",
    use="policyopt train grpo --chunks.tokens 512",
)
def seco_spaco(
    tokens: int = 128, kept: int | None = None, cap: float = 2.0, drawn: Literal["subset", "independent"] = "subset"
) -> Chunks:
    r"""Train on responses whose activations do not fit: backward chunk by chunk, through all chunks or a share of them.

    .. math:: (o_j, m_j) = f(x_j; m_1, \dots, m_{j-1}), \qquad
              g_j = \sum_{l > j} \frac{\partial m_l}{\partial m_j}^T \gamma g_l + \frac{\partial o_l}{\partial m_j}^T \alpha
              \frac{\partial L}{\partial o_l}

    A row is cut into chunks :math:`x_j` of ``tokens``; :math:`m_j` are keys and values of all layers. A first pass without gradient fills
    them and gives what the loss reads, :math:`o_j`. Then each chunk, from the last to the first, is computed once more with
    gradient from the keys and values of those before it, takes the gradient :math:`g_j` that later chunks left on its own, goes
    backward, and its graph is freed. That is the exact gradient (SeCO) in the memory of one chunk; keys, values and their
    gradients of the row stay. Since every objective here is a sum of token weights times log-probabilities, it serves every
    method, those with ratios of whole responses too.

    With ``kept`` = t, only t of the k chunks of a row are drawn and passed backward (SpaCO), with
    :math:`\alpha = k/t` and :math:`\gamma = \min(k/t, cap)`. This is an estimate. A chain through p chunks survives a draw of t of k with probability
    :math:`\frac{t(t-1)\cdots(t-p+1)}{k(k-1)\cdots(k-p+1)}`, less than :math:`(t/k)^p`, so that far dependencies come out too small; the ``cap`` shortens them
    once more, for less variance. ``--chunks.drawn independent --chunks.cap inf`` draws each chunk by itself and is exactly unbiased. Which
    chunks are drawn follows from the tokens of the row and the number of the update.

    Calling this guide gives the settings (``chunks``) of a run. Larger chunks are faster: take the largest that fit. Models that keep another
    state than keys and values of all tokens (windows, recurrences) are refused, and rows in chunks share no prompt; a critic passes
    in chunks too. Defaults as in the paper (chunks of 128, cap 2), which draws 8 chunks of 128.

    Source: arXiv:2505.16710 and the authors' code, whose training script multiplies the loss by k/t too where algorithm 2 of the
    paper multiplies the gradient of the cache alone; unbiasedness needs both.
    """
    return Chunks(tokens=tokens, kept=kept, cap=cap, drawn=drawn)
