"""Tidegate: ships model versions to NVIDIA Triton on Kubernetes, a little at a time."""

__version__ = "0.1.0"
