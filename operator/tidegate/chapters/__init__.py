"""What a plan consists of, idea by idea; `tidegate.plan` puts it together. Pure."""
