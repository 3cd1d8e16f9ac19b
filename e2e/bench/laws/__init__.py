"""Other autoscalers' laws, written from their documentation, to compare with."""
