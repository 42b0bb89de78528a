"""What ``benchmarks/run.py`` runs: workloads, contenders, the arithmetic of both, and how they take turns."""
