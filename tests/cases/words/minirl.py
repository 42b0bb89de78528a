"""Words of MiniRL."""

KEYS = {"keep_mask": lambda run: run.part("weight.ClipMask")(run.log_ratio, run.credited) * run.credited.mask}
