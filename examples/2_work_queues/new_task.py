"""Put a task into the queue `tasks`. Each dot in its text stands for one tenth of a second of work.

    python new_task.py "resize photo 17..."

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
task = " ".join(sys.argv[1:]) or "a short task."

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()

    # A durable queue is still known after a restart of the broker.
    channel.queue_declare(queue="tasks", durable=True)

    # From here on publish returns only when the broker has taken the message over, and raises when it cannot.
    channel.confirm_delivery()

    channel.basic_publish(
        exchange="",
        routing_key="tasks",
        body=task.encode(),
        properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
        mandatory=True,
    )
    print(f"queued: {task}")
