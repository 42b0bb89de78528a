"""Methods that learn from the distributions of a teacher, or from demonstrations."""
