"""Magika, file-type detection: two real generations of one model."""
