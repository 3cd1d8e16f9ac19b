"""A real model with faults on demand: bad versions, and good ones that look odd."""
