"""What `make demo` does with a cluster that is up."""
