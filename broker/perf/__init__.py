"""`leveret perf`: a load generator for any AMQP 0-9-1 broker, on Leveret's own codec."""
