"""Methods that change how token losses are added up."""
