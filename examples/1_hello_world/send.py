"""Send one message to the queue `hello`.

    python send.py
    python send.py "How are you?"

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
text = " ".join(sys.argv[1:]) or "Hello, World!"

# Leaving the block closes the connection, which first writes out everything that pika still holds.
with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()

    # Declaring a queue creates it, or does nothing when it is there already. Sender and receiver both do it,
    # so that either may be started first.
    channel.queue_declare(queue="hello")

    # The exchange with the empty name hands a message to the queue named by the routing key.
    channel.basic_publish(exchange="", routing_key="hello", body=text.encode())
    print(f"sent: {text}")
