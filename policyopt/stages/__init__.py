"""Plans: runs that follow one another, each with the model of the one before, and with what it answered."""
