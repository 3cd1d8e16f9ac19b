"""A model whose time is known: it sleeps, so that many of them share a small machine."""
