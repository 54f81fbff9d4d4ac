"""Print the events whose topics match one of the patterns, until Ctrl-C.

In a pattern `*` stands for one word and `#` for any number of words, none included.

    python watch_events.py "#"
    python watch_events.py "garden.*.opened" "kitchen.#"

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
patterns = sys.argv[1:]
if not patterns:
    sys.exit('usage: watch_events.py PATTERN...   (for example: "garden.*.opened" "kitchen.#")')


def on_event(channel, method, properties, body):
    print(f"{method.routing_key}: {body.decode()}", flush=True)


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.exchange_declare(exchange="events", exchange_type="topic")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue

    # An event that matches several patterns still comes once.
    for pattern in patterns:
        channel.queue_bind(queue=queue, exchange="events", routing_key=pattern)
    channel.basic_consume(queue=queue, on_message_callback=on_event, auto_ack=True)

    print("watching, Ctrl-C to stop", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        print("stopped")
