"""Benches: each layer alone, and the whole broker beside RabbitMQ. Run them from the top of the tree: `python -m bench.run`."""
