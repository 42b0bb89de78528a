"""Methods that change the importance ratio."""
