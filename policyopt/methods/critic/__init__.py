"""Methods that learn a value function."""
