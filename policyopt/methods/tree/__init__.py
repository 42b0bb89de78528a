"""Methods that draw responses as trees, or credit them by the beginnings that they share."""
