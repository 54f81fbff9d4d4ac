"""The command-line tools of librabbitmq (C): amqp-declare-queue, amqp-publish, amqp-get, amqp-consume, amqp-delete-queue."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.clients.toolchain import require
from tests.names import unique
from tests.node import Broker

WITHIN_S = 30

Tool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tool(broker: Broker) -> Tool:
    """A function that runs `amqp-<name> ARGUMENTS` against the broker; `input` is what it reads, `status` the exit status it must have."""
    require("amqp-tools")

    def run(name: str, *arguments: str, input: str = "", status: int = 0, url: str = broker.url) -> subprocess.CompletedProcess[str]:
        command = [f"amqp-{name}", f"--url={url}", *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        assert done.returncode == status, f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture
def queue(tool: Tool) -> str:
    name = unique("q")
    assert tool("declare-queue", f"--queue={name}").stdout == f"{name}\n"
    return name


def test_what_is_published_can_be_got(tool: Tool, queue: str) -> None:
    tool("publish", f"--routing-key={queue}", "--body=first")
    tool(
        "publish",
        f"--routing-key={queue}",
        "--persistent",
        "--content-type=text/plain",
        "--header=colour: red",
        input="second, from standard input",
    )
    assert tool("get", f"--queue={queue}").stdout == "first"
    assert tool("get", f"--queue={queue}").stdout == "second, from standard input"
    tool("get", f"--queue={queue}", status=2)  # an empty queue
    assert tool("delete-queue", f"--queue={queue}").stdout == "0\n"


def test_a_body_of_many_frames_comes_through(tool: Tool, queue: str) -> None:
    body = "0123456789" * 100_000
    tool("publish", f"--routing-key={queue}", input=body)
    assert tool("get", f"--queue={queue}").stdout == body
    tool("delete-queue", f"--queue={queue}")


def test_messages_are_consumed_by_a_command_each(tool: Tool, queue: str) -> None:
    for number in range(3):
        tool("publish", f"--routing-key={queue}", f"--body=message {number};")
    consumed = tool("consume", f"--queue={queue}", "--count=2", "--prefetch-count=1", "cat")
    assert consumed.stdout == "message 0;message 1;"
    # The third was never acknowledged, and is counted when its queue is deleted.
    assert tool("delete-queue", f"--queue={queue}").stdout == "1\n"


def test_a_queue_is_deleted_only_if_it_is_empty(tool: Tool, queue: str) -> None:
    tool("publish", f"--routing-key={queue}", "--body=x")
    refused = tool("delete-queue", f"--queue={queue}", "--if-empty", status=1)
    assert f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty" in refused.stderr
    tool("delete-queue", f"--queue={queue}")


def test_consuming_through_an_exchange(tool: Tool, broker: Broker, queue: str) -> None:
    """amqp-consume binds a queue of the name it is given to an exchange."""
    with broker.connect() as connection:
        connection.channel().queue_bind(queue, "amq.topic", "greeting.*")
        tool("publish", "--exchange=amq.topic", "--routing-key=greeting.loud", "--body=HELLO")
        tool("publish", "--exchange=amq.topic", "--routing-key=farewell", "--body=BYE")
        assert tool("consume", f"--queue={queue}", "--count=1", "cat").stdout == "HELLO"
    assert tool("delete-queue", f"--queue={queue}").stdout == "0\n"


def test_refusals_are_told_in_the_brokers_words(tool: Tool, broker: Broker) -> None:
    assert "NOT_FOUND - no queue 'nowhere' in vhost '/'" in tool("get", "--queue=nowhere", status=1).stderr
    wrong = broker.url.replace(f"{broker.user}:{broker.password}", f"{broker.user}:wrong")
    assert "ACCESS_REFUSED - Login was refused" in tool("declare-queue", "--queue=q", url=wrong, status=1).stderr
    nowhere = broker.url.replace("%2F", "nowhere")
    assert "NOT_ALLOWED - vhost nowhere not found" in tool("declare-queue", "--queue=q", url=nowhere, status=1).stderr
