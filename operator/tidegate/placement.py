"""How many pods each revision is to have during a rollout, on the GPUs that there are."""
