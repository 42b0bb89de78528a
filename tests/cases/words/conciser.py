"""What cases call things in ConciseR."""

from __future__ import annotations

PARAMS = {"lambda": "coef", "L_max": "max_len", "eps": "advantage.eps"}
