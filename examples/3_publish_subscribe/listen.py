"""Print all announcements made from now on, until Ctrl-C. Start several: each hears everything.

    python listen.py

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")


def on_announcement(channel, method, properties, body):
    print(f"heard: {body.decode()}", flush=True)


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.exchange_declare(exchange="announcements", exchange_type="fanout")

    # A queue of our own: the broker makes up its name, and removes it when this connection ends.
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(queue=queue, exchange="announcements")
    channel.basic_consume(queue=queue, on_message_callback=on_announcement, auto_ack=True)

    print("listening, Ctrl-C to stop", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        print("stopped")
