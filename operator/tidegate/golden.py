"""Golden requests: what is sent to each new pod, and what it must answer."""
