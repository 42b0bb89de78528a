"""Methods that hold the policy near a model, or to a target, by another divergence or strength."""
