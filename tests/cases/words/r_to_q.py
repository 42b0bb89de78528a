"""What the cases of from r to Q* call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.case import token_logp
from policyopt.methods.analysis.r_to_q import TokenCredit
from policyopt.rows import FIXED, make_batch


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """One response, whose logits are q over beta."""
    beta = given["params"]["beta"]
    q, ref = (torch.tensor(given[name], dtype=torch.float64) for name in ("q", "ref_logits"))
    tokens = torch.tensor(given["tokens"])
    logp, ref_logp = (token_logp(x, tokens) for x in (q / beta, ref))
    part = TokenCredit(of="policy", beta=beta, potential=True)
    (value,) = part.fixed
    values = value(q / beta, tokens, {})
    batch = make_batch(
        mask=torch.ones(1, len(tokens), dtype=torch.float64), old_logp=logp[None], ref_logp=ref_logp[None]
    ).with_statistics({FIXED + value.key: values[None]})
    credit, reward = part.credit(batch)[0], part(batch).token_reward[0]
    return {
        "value": values,
        "logp": logp,
        "ref_logp": ref_logp,
        "token_credit": credit,
        "token_reward": reward,
        "sum_token_reward": reward.sum(),
        "start_value_plus_credit": values[0] + credit.sum(),
    }


CASES = {"value_target": _values}
