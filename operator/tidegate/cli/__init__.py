"""The command line: `tidegate`, and `kubectl tidegate`."""
