"""Print every message that comes to the queue `hello`, until Ctrl-C.

    python receive.py

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")


def on_message(channel, method, properties, body):
    print(f"received: {body.decode()}", flush=True)


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.queue_declare(queue="hello")

    # With auto_ack the broker forgets a message as soon as it is sent to us; the next example does better.
    channel.basic_consume(queue="hello", on_message_callback=on_message, auto_ack=True)

    print("waiting for messages, Ctrl-C to stop", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        print("stopped")
