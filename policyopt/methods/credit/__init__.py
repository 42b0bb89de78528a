"""Methods that change how credit is worked out of rewards."""
