"""Parts that fill the slot ``ratio``."""
