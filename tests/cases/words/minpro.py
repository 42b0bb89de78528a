"""Words of MinPRO."""

KEYS = {"raw_weight": lambda run: run.part("ratio")(run.batch).exp() * run.batch.mask}
