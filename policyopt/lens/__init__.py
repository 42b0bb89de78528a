"""What can be seen of a recipe and of a run: numeric cases, pictures, the report."""
