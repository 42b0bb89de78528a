"""Methods against each other: the grid of runs, its statistics, its page, and the claims that it puts to the test."""
