"""Starting COMMAND: fork, confine, filter, hand over, exec."""
