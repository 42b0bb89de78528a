"""Studies: papers that measure or prove, and train nothing of their own; their probes go beside any method."""
