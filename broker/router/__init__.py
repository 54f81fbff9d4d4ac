"""The router process: the topology's only writer, and the way from an exchange to its queues."""
