"""Words of MiniRL."""

KEYS = {"keep_mask": lambda run: run.part("weight.0")(run.log_ratio, run.credited) * run.credited.mask}
