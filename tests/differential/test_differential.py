"""RabbitMQ and Leveret perform the same scripts, and what clients see is the same but for the reviewed list (`intended.toml`).

`make differential` runs thousands of scripts, the suite some hundred. Variables: `LEVERET_DIFFERENTIAL_SCRIPTS` (how many),
`LEVERET_DIFFERENTIAL_SEED` (the first seed; with one script, that script is replayed), `LEVERET_DIFFERENTIAL_WITHIN_S` (no new script after
that many seconds).
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peer import Peer
from tests.clients.toolchain import require
from tests.conftest import PEER, WORKERS
from tests.differential.comparison import Intended, compare, read_intended
from tests.differential.pair import Finding, Pair
from tests.differential.performance import Record, Transcript
from tests.differential.random_scripts import random_script
from tests.differential.script import Script, Step
from tests.differential.scripts import SCRIPTS
from tests.differential.shortening import shorten
from tests.node import Broker, Node

COUNT = int(os.environ.get("LEVERET_DIFFERENTIAL_SCRIPTS", "400"))
FIRST_SEED = int(os.environ.get("LEVERET_DIFFERENTIAL_SEED", "1"))
WITHIN_S = float(os.environ.get("LEVERET_DIFFERENTIAL_WITHIN_S", "100"))
LONG_RUN = 2000  # scripts after which an entry of the list that was never seen is worth a warning
FINDINGS_SHOWN = 12
UNSTEADY_MAX = 0.02  # share of scripts


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Both brokers, private to this module. Leveret's data lies in memory: what is compared is not how fast a disk is."""
    if PEER is not None:
        pytest.skip("both brokers are started here; LEVERET_TEST_PEER has no say")
    require("rabbitmq")
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with Peer() as peer, tempfile.TemporaryDirectory(prefix="leveret-differential-", dir=memory) as folder:
        node = Node(Path(folder) / "data", workers=WORKERS).start()
        made = Pair(Broker("127.0.0.1", peer.port), node, read_intended())
        yield made
        made.close()
        node.stop()


@pytest.mark.timeout(WITHIN_S * 3 + 300)  # shortening what is found takes its time
def test_scripts_show_the_same_on_both(pair: Pair) -> None:
    """One test, so that one RabbitMQ serves it all: first the scripts that once differed, then random ones."""
    findings: dict[str, Finding] = {}
    began = time.monotonic()
    scripts = list(SCRIPTS) if COUNT > 1 else []
    scripts += [random_script(seed) for seed in range(FIRST_SEED, FIRST_SEED + COUNT)]
    for script in scripts:
        if time.monotonic() - began > WITHIN_S and pair.scripts > len(SCRIPTS):
            break
        found = pair.try_script(script)
        if found is not None:
            findings.setdefault(found.key, found)
            if len(findings) >= FINDINGS_SHOWN:
                break
    print(pair.report())
    for unsteady in pair.unsteady:
        print(f"did not show again: {unsteady}")
    unseen = [entry.name for entry in pair.intended if not pair.seen[entry.name]]
    if pair.scripts >= LONG_RUN and unseen:
        warnings.warn(f"intended differences that never showed in {pair.scripts} scripts: {unseen}", stacklevel=1)
    assert not findings, "\n\n".join(str(found) for found in findings.values()) + "\n\n" + pair.report()
    assert len(pair.unsteady) <= max(1, UNSTEADY_MAX * pair.scripts), "\n\n".join(pair.unsteady)
    assert pair.scripts > len(SCRIPTS) or COUNT <= 1, f"not one random script within {WITHIN_S} s"


# --- the harness itself


def record(**streams: list[str]) -> Record:
    return Record("step", dict(streams))


DECLARE = Script("a test", (Step("A", 1, "exchange.declare", {"exchange": "x0", "type": "odd"}),))
END = record(queues=[])


def judged(theirs: Record, ours: Record, intended: list[Intended]) -> tuple[int | None, list[str], bool]:
    verdict = compare(DECLARE, Transcript([theirs, END]), Transcript([ours, END]), intended)
    return verdict.step, verdict.intended, verdict.is_open


def test_a_script_is_made_of_its_seed_alone() -> None:
    assert random_script(5) == random_script(5)
    assert random_script(5) != random_script(6)
    operations = {step.operation for seed in range(200) for step in random_script(seed).steps}
    assert {"queue.declare", "basic.consume", "basic.nack", "connection.close", "raw", "publish", "drop"} <= operations


def test_equal_transcripts_agree_and_others_do_not() -> None:
    same = record(**{"A.1": ["ExchangeDeclareOk()"]})
    assert judged(same, record(**{"A.1": ["ExchangeDeclareOk()"]}), []) == (None, [], False)
    assert judged(same, record(**{"A.1": []}), []) == (0, [], False)
    assert judged(same, record(**{"A.2": ["ExchangeDeclareOk()"]}), []) == (0, [], False)


def test_a_difference_in_the_last_look_at_the_queues_counts() -> None:
    both = record()
    left = Transcript([both, record(queues=["q0: 1 messages, 0 consumers"])])
    assert compare(DECLARE, left, Transcript([both, END]), []).step == 1


def test_an_entry_of_the_list_excuses_only_what_it_says() -> None:
    entries = read_intended()
    by_method = "failing_class_id=40, failing_method_id=10)"
    text = "COMMAND_INVALID - unknown exchange type 'odd'"
    theirs = record(**{"A.0": [f'ConnectionClose(reply_code=503, reply_text="{text}", {by_method}']})

    def ours(kind: str) -> Record:
        text = f"PRECONDITION_FAILED - unknown exchange type '{kind}'"
        return record(**{"A.1": [f'ChannelClose(reply_code=406, reply_text="{text}", {by_method}']})

    assert judged(theirs, ours("odd"), entries) == (None, ["unknown exchange type"], False)
    assert judged(theirs, ours("other"), entries) == (0, [], False)
    assert judged(theirs, record(**{"A.1": ["ExchangeDeclareOk()"]}), entries) == (0, [], False)


def test_who_of_two_consumers_gets_a_message_is_open() -> None:
    def delivered(tag: str, body: str) -> Record:
        lines = [f"BasicDeliver(consumer_tag='{tag}', delivery_tag=1) {body}", "BasicDeliver(consumer_tag='t9', x)"]
        made = record(**{"A.1 deliveries": lines})
        made.loose = [f"q0 False {body}", "q0 False other"]
        return made

    assert judged(delivered("t0", "m1"), delivered("t1", "m1"), []) == (None, [], True)
    assert judged(delivered("t0", "m1"), delivered("t1", "m2"), []) == (0, [], False)


def test_shortening_keeps_just_what_the_difference_needs() -> None:
    steps = tuple(Step("A", number, "basic.qos") for number in range(1, 40))
    asked = []

    def still_differs(script: Script) -> bool:
        asked.append(script)
        channels = {step.channel for step in script.steps}
        return {7, 23} <= channels

    assert [step.channel for step in shorten(Script("a test", steps), still_differs).steps] == [7, 23]
    assert len(asked) < 100


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[difference]]\nname = "n"', "missing or unknown"),
        (
            '[[difference]]\nname = "n"\noperation = "x"\nrabbitmq = ""\nleveret = ""\nparts = true\nversions = "3"\nreason = "r"',
            "at least one side",
        ),
    ],
)
def test_an_entry_that_says_too_little_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "list.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        read_intended(path)
