"""Parts that fill the slot ``select``."""
