"""Answer requests for Fibonacci numbers, until Ctrl-C. Start several to share the work.

    python fibonacci_server.py

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")


def fibonacci(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def on_request(channel, method, properties, body):
    try:
        answer = str(fibonacci(int(body)))
    except ValueError:
        answer = f"not a number: {body.decode(errors='replace')}"
    print(f"fibonacci({body.decode(errors='replace')}) = {answer}", flush=True)

    # The answer goes to the queue that the asker named, with the asker's own mark for this question.
    channel.basic_publish(
        exchange="",
        routing_key=properties.reply_to,
        properties=pika.BasicProperties(correlation_id=properties.correlation_id),
        body=answer.encode(),
    )
    channel.basic_ack(delivery_tag=method.delivery_tag)


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.queue_declare(queue="fibonacci")
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue="fibonacci", on_message_callback=on_request)

    print("waiting for requests, Ctrl-C to stop", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        print("stopped")
