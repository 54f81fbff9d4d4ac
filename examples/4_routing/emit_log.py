"""Send a log line of some severity.

    python emit_log.py error "The disk is full"

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
severity = sys.argv[1] if len(sys.argv) > 1 else "info"
text = " ".join(sys.argv[2:]) or "Hello, log!"

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()

    # A direct exchange gives a message to the queues that were bound with exactly its routing key.
    channel.exchange_declare(exchange="log", exchange_type="direct")
    channel.basic_publish(exchange="log", routing_key=severity, body=text.encode())
    print(f"logged: {severity}: {text}")
