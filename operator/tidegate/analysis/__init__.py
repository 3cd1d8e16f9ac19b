"""Is the canary good, bad, or not known yet? Sequential tests that stay valid at every look."""
