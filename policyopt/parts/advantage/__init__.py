"""Parts that fill the slot ``advantage``."""
