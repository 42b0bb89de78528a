"""Words of DHPO."""

COLUMNS = {"entropy": ("sampled_entropy", "token")}
KEYS = {"token_weight": lambda run: run.part("surrogate").token_weight(run.batch) * run.batch.mask}
