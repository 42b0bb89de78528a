"""Numbers that stand for whole responses."""
