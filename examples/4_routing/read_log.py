"""Print the log lines of the severities asked for, until Ctrl-C.

    python read_log.py warning error
    python read_log.py info warning error > everything.txt

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
severities = sys.argv[1:]
if not severities:
    sys.exit("usage: read_log.py SEVERITY...   (for example: info warning error)")


def on_line(channel, method, properties, body):
    print(f"{method.routing_key}: {body.decode()}", flush=True)


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.exchange_declare(exchange="log", exchange_type="direct")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue

    # One binding for each severity; a queue may have as many as it likes.
    for severity in severities:
        channel.queue_bind(queue=queue, exchange="log", routing_key=severity)
    channel.basic_consume(queue=queue, on_message_callback=on_line, auto_ack=True)

    print("reading the log, Ctrl-C to stop", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        print("stopped")
