"""Rollouts of good and bad versions on the embedded cluster, with a client that sees everything."""
