"""Tell something to everybody who is listening just now.

    python announce.py "Lunch is ready"

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
text = " ".join(sys.argv[1:]) or "Hello, everybody!"

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()

    # A fanout exchange copies each message into every queue that is bound to it. Without any, the message is gone.
    channel.exchange_declare(exchange="announcements", exchange_type="fanout")
    channel.basic_publish(exchange="announcements", routing_key="", body=text.encode())
    print(f"announced: {text}")
