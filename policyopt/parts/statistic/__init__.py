"""Parts that fill the slot ``statistic``."""
