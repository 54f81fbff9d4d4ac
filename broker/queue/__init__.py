"""Queues and what they hold, as pure state: no socket, no clock, no storage."""
