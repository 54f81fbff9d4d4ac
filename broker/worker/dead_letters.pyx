"""Dead letters on their way: what has died in a queue of this worker is published to the queue's dead letter exchange.

One sender for each queue that has such an exchange; the queue keeps the letters (`Queue.dead_letters`), the sender only knows how far it
has come. It publishes as a channel does, by the router or straight to a queue, under a number of its own in `WorkerState`, so verdicts and
confirms find it. A letter is let go when everybody it went to has taken it, what is durable to the disk, and is sent once more when a
process died over it: at least once, and never none. What is nowhere taken (no such exchange, no queue, a full one, a circle) is let go as
well, as in RabbitMQ.

It works in slices, each in a turn of its own, and never within a publish: a letter that kills another one makes work for later, so
circles and long chains of queues cost neither stack nor anybody's turn.
"""

import time

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from leveret.link.packets cimport ENQUEUE_WANTS_CONFIRM, PUBLISH_WANTS_VERDICT
from leveret.queue.consumer cimport Consumer
from leveret.queue.ledger cimport Ledger, Slot, ledger_seek
from leveret.queue.message cimport (
    MESSAGE_DIED,
    MESSAGE_PERSISTENT,
    MESSAGE_SHUNS_CYCLE,
    Message,
    message_body,
    message_exchange,
    message_new,
    message_properties,
    message_release,
    message_routing_key,
)
from leveret.queue.queue cimport PUBLISH_STORED, SETTLE_BURIED
from leveret.queue.ring cimport ENTRY_EXPIRED, ENTRY_REJECTED
from leveret.worker.channel cimport Publisher
from leveret.worker.confirms cimport AWAITS_VERDICT, ROUTED, Confirms
from leveret.worker.directory cimport ExchangeEntry, QueueEntry, Vhost
from leveret.worker.neighbour cimport Neighbour
from leveret.worker.state cimport ShardQueue, WorkerState

from leveret.queue.deaths import with_death
from leveret.worker.sender_selected import further_keys

cdef enum:
    LETTERS_PER_TURN = 200      # some ten microseconds each
    LETTERS_UNDER_WAY_MAX = 4096    # published and not yet answered

RETRY_S = 0.5                   # after a process has died, or memory or the disk were full


cdef class DeadLetterSender(Publisher):
    """Begins to send what the queue has; `queue` has a dead letter exchange and is one of `state`'s.

    Letters and publishes have the same numbers: each letter is published once under its own, and gets a new one to be sent again.
    """

    cdef ShardQueue queue
    cdef Consumer letters
    cdef bytes exchange_name
    cdef bytes queue_name
    cdef bytes key                      # None: the letter's own
    cdef set throttles                  # workers that are behind
    cdef bint waits                     # until `go_on`

    def __init__(self, WorkerState state, ShardQueue queue):
        self.state = state
        self.queue = queue
        self.letters = queue.dead_letters
        self.exchange_name = queue.rules.dead_letter_exchange.encode()
        self.queue_name = queue.name.encode()
        self.key = queue.rules.dead_letter_routing_key
        self.throttles = set()
        self.ref = state.new_ref()
        self.confirms = Confirms()
        self.confirms.start()
        self.confirming = True
        state.add_sender(self)

    def close(self):
        """The queue is deleted: the sender goes when its last letter has arrived."""
        if self.letters.ledger.live == 0:
            self.state.remove_sender(self)

    # --- sending

    def send(self):
        """One slice. More follows by itself: in the next turn, or when what stood in the way is gone."""
        cdef Ledger* ledger = &self.letters.ledger
        cdef size_t index
        cdef int budget = LETTERS_PER_TURN
        while not self.throttles and not self.waits and self.confirms.next - self.confirms.first < LETTERS_UNDER_WAY_MAX:
            index = ledger_seek(ledger, self.confirms.next)
            if index == ledger.tail:
                return
            if budget == 0:
                self.queue.dead_letters_came()
                return
            budget -= 1
            assert ledger.slots[index].key == self.confirms.next and ledger.slots[index].item != NULL
            try:
                if not self.send_one(&ledger.slots[index]):
                    return
            except MemoryError:
                self.wait_a_little()
                return

    cdef bint send_one(self, Slot* slot) except -1:
        """Publish the letter; False: there is no room for it now, and `link_has_room` will be called."""
        cdef Vhost vhost = self.state.directory.vhosts.get(self.queue.vhost)
        cdef ExchangeEntry exchange
        cdef Message* letter
        cdef bytes more_keys = b""
        cdef uint16_t more_count = 0
        cdef uint64_t publish_no
        if vhost is None:
            return self.arrived()
        if not self.exchange_name:
            letter = self.write(slot)
            try:
                return self.send_by_default(vhost, letter)
            finally:
                message_release(letter)
        exchange = vhost.find_exchange(<const uint8_t*>PyBytes_AS_STRING(self.exchange_name), PyBytes_GET_SIZE(self.exchange_name))
        if exchange is None:
            return self.arrived()
        if not self.state.router.has_room():
            self.state.router.call_when_roomy(self)
            return False
        letter = self.write(slot)
        try:
            if self.key is None:
                more_keys, more_count, _ = further_keys(message_properties(letter)[:letter.properties_size])
            publish_no = self.confirms.open(0, AWAITS_VERDICT | ROUTED, NULL)
            self.state.router.send_publish(None, exchange.id, self.ref, publish_no, PUBLISH_WANTS_VERDICT, more_keys, more_count, letter)
        finally:
            message_release(letter)
        return True

    cdef bint send_by_default(self, Vhost vhost, Message* letter) except -1:
        """To the queues that its routing keys name."""
        cdef QueueEntry queue
        cdef Neighbour neighbour
        cdef uint64_t workers = 0
        cdef uint64_t publish_no
        cdef bint stored = False
        cdef dict queues = {}
        cdef dict elsewhere = {}        # worker -> its queues' ids
        cdef list here = []
        for key in self.keys_of(letter):
            found = vhost.queues.get(key.decode("utf-8", "replace"))
            if found is not None:
                queues[found.id] = found
        for queue in queues.values():
            if queue.local is not None:
                here.append(queue.local)
                continue
            neighbour = self.state.workers[queue.worker]
            if not neighbour.has_room():
                neighbour.call_when_roomy(self)
                return False
            workers |= <uint64_t>1 << queue.worker
            elsewhere.setdefault(queue.worker, []).append(queue.id)
        for local in here:
            if not (letter.flags & MESSAGE_SHUNS_CYCLE and (<ShardQueue>local).closes_cycle(letter)):
                stored |= (<ShardQueue>local).publish(letter) & PUBLISH_STORED
        if stored:
            workers |= <uint64_t>1 << self.state.index
        if workers == 0:
            return self.arrived()
        publish_no = self.confirms.open(workers, 0, NULL)
        if stored:
            self.state.committer.wait_for(self.state.index, self.ref, publish_no)
        for worker, queue_ids in elsewhere.items():
            (<Neighbour>self.state.workers[worker]).send_enqueue_many(
                None, queue_ids, self.ref, publish_no, ENQUEUE_WANTS_CONFIRM, letter)
        return True

    cdef list keys_of(self, Message* letter):
        """Its routing keys, CC among them."""
        cdef list keys = [message_routing_key(letter)[:letter.routing_key_size]]
        cdef bytes packed
        cdef size_t at = 0
        if self.key is None:
            packed, _, _ = further_keys(message_properties(letter)[:letter.properties_size])
            while at < <size_t>len(packed):
                keys.append(packed[at + 1:at + 1 + packed[at]])
                at += 1 + packed[at]
        return keys

    cdef bint arrived(self) except -1:
        """The letter has been taken here, or is taken nowhere."""
        self.confirms.open_settled()
        self.state.poller.want_ending(self)
        return True

    cdef Message* write(self, Slot* slot) except NULL:
        """The letter for a message that has died: what it said, with one more death in its headers."""
        cdef Message* dead = <Message*>slot.item
        cdef Message* letter
        cdef bytes reason = b"rejected" if slot.flags & ENTRY_REJECTED else b"expired" if slot.flags & ENTRY_EXPIRED else b"maxlen"
        cdef bytes routing_key = message_routing_key(dead)[:dead.routing_key_size]
        cdef bytes key = routing_key if self.key is None else self.key
        cdef bytes properties = with_death(
            message_properties(dead)[:dead.properties_size], dead.flags & MESSAGE_DIED != 0, self.queue_name, reason,
            message_exchange(dead)[:dead.exchange_size], routing_key, self.key is not None, int(time.time()))
        cdef uint16_t flags = dead.flags & MESSAGE_PERSISTENT | MESSAGE_DIED
        if not slot.flags & ENTRY_REJECTED:
            flags |= MESSAGE_SHUNS_CYCLE
        letter = message_new(
            <const uint8_t*>self.exchange_name, <uint8_t>len(self.exchange_name), <const uint8_t*>key, <uint8_t>len(key),
            <const uint8_t*>properties, <uint32_t>len(properties), dead.body_size, flags)
        if letter == NULL:
            raise MemoryError
        memcpy(message_body(letter), message_body(dead), dead.body_size)
        return letter

    # --- answers

    cdef int verdict(self, uint64_t publish_no, uint64_t workers) except -1:
        self.confirms.verdict(publish_no, workers)
        return self.state.poller.want_ending(self)

    cdef int at_turn_end(self) except -1:
        """Let go of what has arrived; what was lost with a process goes again."""
        cdef Confirms confirms = self.confirms
        cdef size_t index
        cdef uint64_t first, last
        confirms.collect()
        for index in range(confirms.answers_count):
            last = confirms.answers[index].tag
            first = 0 if confirms.answers[index].multiple else last
            if confirms.answers[index].nack:
                # At once, before an ack of later ones covers these; what is to be sent then waits a little.
                self.wait_a_little()
                self.queue.resend(first, last)
            else:
                self.queue.settle(self.letters, first, last, SETTLE_BURIED)
        if ledger_seek(&self.letters.ledger, confirms.next) != self.letters.ledger.tail:
            self.queue.dead_letters_came()
        elif self.letters.ledger.live == 0 and self.state.queues.get(self.queue.id) is not self.queue:
            self.state.remove_sender(self)
        return 0

    def wait_a_little(self):
        """A process has died, or memory or the disk is full: send nothing for now."""
        if not self.waits:
            self.waits = True
            self.state.poller.loop.call_later(RETRY_S, self.go_on)

    def go_on(self):
        self.waits = False
        self.queue.dead_letters_came()

    # --- back-pressure

    def link_has_room(self):
        self.queue.dead_letters_came()

    cdef int throttle(self, int worker) except -1:
        self.throttles.add(worker)
        self.state.throttled.setdefault(worker, set()).add(self)
        return 0

    def relieve(self, int worker):
        """That worker has caught up."""
        self.throttles.discard(worker)
        if not self.throttles:
            self.queue.dead_letters_came()

    cdef int slow_down(self) except -1:
        return 0        # it waits for confirms, and has nobody to slow down
