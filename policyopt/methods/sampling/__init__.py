"""Methods that change which responses are drawn and trained on."""
