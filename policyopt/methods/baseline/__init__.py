"""Policy gradients that differ in their baseline."""
