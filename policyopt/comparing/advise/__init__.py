"""What is seen in the log of a run, and what addresses it."""
