"""Send an event under a topic: words joined by dots, from the general to the special.

    python emit_event.py garden.gate.opened "by the gardener"

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
topic = sys.argv[1] if len(sys.argv) > 1 else "garden.gate.opened"
text = " ".join(sys.argv[2:])

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()

    # A topic exchange compares the routing key, word by word, with the pattern of each binding.
    channel.exchange_declare(exchange="events", exchange_type="topic")
    channel.basic_publish(exchange="events", routing_key=topic, body=text.encode())
    print(f"sent: {topic}: {text}")
