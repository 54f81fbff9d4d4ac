"""The supervisor: starts, watches and restarts the node's processes, and owns what they share. It never touches a message."""
