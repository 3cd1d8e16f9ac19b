"""Trained models in the cluster: as they were converted, and as `tidegate prepare` makes them."""
