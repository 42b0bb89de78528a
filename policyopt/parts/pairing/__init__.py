"""Which responses to one prompt are a pair, and what a pair counts."""
