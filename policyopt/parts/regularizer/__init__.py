"""Parts that fill the slot ``regularizer``."""
