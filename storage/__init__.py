"""Durable bytes on LMDB: knows records and keys, not AMQP. Imports nothing of ours."""
