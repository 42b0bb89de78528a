"""Methods that say how long a response should be."""
