"""Parts that fill the slot ``reference``."""
