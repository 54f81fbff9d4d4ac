"""Workers: client connections, channels, and the shard of queues that each owns."""
