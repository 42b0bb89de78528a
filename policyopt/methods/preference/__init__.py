"""Methods that learn from pairs of texts, one preferred to the other."""
