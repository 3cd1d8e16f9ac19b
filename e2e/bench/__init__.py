"""Measurements, each by one command: ``python -m e2e.bench.NAME``; a JSON and a short table."""
