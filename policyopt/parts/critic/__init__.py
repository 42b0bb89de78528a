"""Parts that fill the slot ``critic``."""
