"""RTLRepoCoder."""

from __future__ import annotations

from policyopt.items import JudgeSpec
from policyopt.registry import guide


@guide(
    arxiv="2504.08862",
    confidence="abstract",
    use="policyopt train grpo --model MODEL --task next_lines.jsonl --judge edits",
)
def rtlrepocoder(lines: int | None = 1) -> JudgeSpec:
    r"""Complete code of a whole repository: what other files say before the cursor, supervised tuning first, then reward by edit similarity.

    .. math:: L = -\sum_t \log\pi(y_t \mid \text{retrieved}, \text{prefix}, y_{<t}),\qquad
              R = \begin{cases}1 & y = y^*\\ 2M/(|y| + |y^*|) & \text{else}\end{cases}

    1. **Data.** A row is a place in a repository: ``prompt`` has the pieces of other files that are most like the code before the cursor, then that code;
       ``answer`` is the next line (for tuning, the same text as ``completion``). Retrieve with the embeddings of your choice when you write the file; the loss is
       on the completion alone.
    2. **Tuning.** ``policyopt train sft --task next_lines.jsonl`` is the paper's training.
    3. **Reward.** ``--judge edits`` gives 1 for the very line, white space at its ends aside, and else its edit similarity, dense and cheap, under any method that
       compares a group; ``accuracy`` is the exact match of the paper's tables. Where a module can be compiled and simulated, the judge ``verilog`` says more.

    Calling this guide gives the judge with that many ``lines`` of a response. The paper is supervised tuning and retrieval, and has no reinforcement
    learning in it. Source: arXiv:2504.08862, known from its abstract, which leaves open how edit similarity is worked out; here M counts characters in matching
    blocks (:func:`~policyopt.judging.edits.edit_similarity`).
    """
    return JudgeSpec("edits", {"lines": lines})
