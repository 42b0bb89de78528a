"""Parts that fill the slot ``curriculum``."""
