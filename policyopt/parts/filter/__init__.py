"""Parts that fill the slot ``filter``."""
