"""Parts that fill the slot ``memory``."""
