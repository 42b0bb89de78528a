"""Parts that fill the slot ``shape``."""
