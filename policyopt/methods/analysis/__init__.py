"""Methods that come with a measurement: what training does, and what it could do at best."""
