"""Parts that fill the slot ``weight``."""
