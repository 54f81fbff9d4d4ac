"""Leveret: a RabbitMQ-compatible message broker (AMQP 0-9-1)."""

__version__ = "0.1.0"
