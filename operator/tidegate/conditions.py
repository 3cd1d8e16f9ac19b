"""Conditions with kstatus semantics: what is true of a ModelDeployment, and why."""
