"""Methods that steer exploration: by entropy, by rare tokens, by what the policy is held to."""
