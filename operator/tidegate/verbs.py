"""Verbs: what a person asks of a rollout, by an annotation."""
