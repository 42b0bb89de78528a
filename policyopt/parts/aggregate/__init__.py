"""Parts that fill the slot ``aggregate``."""
