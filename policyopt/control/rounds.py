"""A whole number that goes up from round to round."""

from __future__ import annotations

from policyopt.control.schedule import Schedule


def counting(field: str, first: int, last: int, every: int) -> tuple[Schedule, ...]:
    """A field that holds ``first`` in the first round of ``every`` steps, one more in each round after it, and ``last`` from then on; no
    controller where the two are one."""
    if first == last:
        return ()
    # A stair begins with its jump, so the way begins one step before the second round.
    return (
        Schedule(
            field, start_value=first, end_value=last, steps=abs(last - first) * every, stairs=abs(last - first),
            delay=every - 1, whole=True,
        ),
    )  # fmt: skip
