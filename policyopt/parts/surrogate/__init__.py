"""Parts that fill the slot ``surrogate``."""
