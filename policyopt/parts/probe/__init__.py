"""Parts that fill the slot ``probe``."""
