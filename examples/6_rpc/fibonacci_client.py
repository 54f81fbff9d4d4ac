"""Ask the Fibonacci server for some numbers and print the answers.

    python fibonacci_client.py 10 50 100

The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"""

import os
import sys
import uuid

import pika

ANSWER_WITHIN_S = 10


class Fibonacci:
    """The remote function: call it like a local one."""

    def __init__(self, connection):
        self.connection = connection
        self.channel = connection.channel()
        self.answers = {}
        self.answer_queue = self.channel.queue_declare(queue="", exclusive=True).method.queue
        self.channel.basic_consume(queue=self.answer_queue, on_message_callback=self.on_answer, auto_ack=True)

    def on_answer(self, channel, method, properties, body):
        self.answers[properties.correlation_id] = body.decode()

    def __call__(self, n):
        question = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange="",
            routing_key="fibonacci",
            properties=pika.BasicProperties(reply_to=self.answer_queue, correlation_id=question),
            body=str(n).encode(),
        )
        self.connection.process_data_events(time_limit=ANSWER_WITHIN_S)
        if question not in self.answers:
            sys.exit(f"no answer within {ANSWER_WITHIN_S} s: is fibonacci_server.py running?")
        return self.answers.pop(question)


url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    fibonacci = Fibonacci(connection)
    for n in sys.argv[1:] or ["30"]:
        print(f"fibonacci({n}) = {fibonacci(n)}")
