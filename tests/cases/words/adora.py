"""What cases call things in ADORA."""

PARAMS = {"lambda": "damping"}
KEYS = {"weight": lambda run: run.part("advantage").by(run.batch)}
