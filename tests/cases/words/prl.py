"""What cases call things in PRL."""

KEYS = {"outcome_advantage": lambda run: run.part("advantage").of(run.batch)}
