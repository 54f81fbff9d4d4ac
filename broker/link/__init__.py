"""Lines between the processes of a node: sockets, buffers, packets, requests."""
