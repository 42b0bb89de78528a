"""Training: the loop, and what surrounds it."""
