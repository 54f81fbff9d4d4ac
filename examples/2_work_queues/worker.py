"""Work on the tasks of the queue `tasks`, one at a time, until Ctrl-C. Start several to share the work.

    python worker.py

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os
import time

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")


def on_task(channel, method, properties, body):
    task = body.decode()
    print(f"working: {task}", flush=True)
    time.sleep(task.count(".") / 10)
    print(f"done: {task}", flush=True)
    # Only now may the broker forget the task. If this program dies before, another worker gets it.
    channel.basic_ack(delivery_tag=method.delivery_tag)


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.queue_declare(queue="tasks", durable=True)

    # Not more than one unfinished task for each worker: a task goes to whoever is free, not to whoever is next.
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue="tasks", on_message_callback=on_task)

    print("waiting for tasks, Ctrl-C to stop", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        print("stopped")
