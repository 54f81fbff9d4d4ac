"""What all connections, channels, queues and links of one worker share.

It owns the worker's shard of queues and the numbers by which packets name queues, channels and consumers; it carries verdicts and confirms
to the channels they are for. `worker` makes one at start. It never does input or output itself.
"""

import logging
import secrets

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from leveret.link.packets cimport CONFIRM_NOT_TAKEN, CONFIRM_REFUSED
from leveret.link.poller cimport Poller, monotonic_ms
from leveret.link.stream cimport unsent
from leveret.lookup.integer_map cimport integer_map_find, integer_map_free, integer_map_remove, integer_map_set
from leveret.queue.message cimport Message, message_properties, message_routing_key
from leveret.worker.channel cimport Channel, Publisher
from leveret.worker.committer cimport Committer
from leveret.worker.connection cimport Connection
from leveret.worker.directory cimport Directory
from leveret.worker.neighbour cimport Neighbour
from leveret.worker.subscription cimport RemoteConsumer, Subscription

from leveret.queue import deaths
from leveret.worker.deadlines import Deadlines
from leveret.worker.reply_to import place_of

log = logging.getLogger(__name__)

cdef enum:
    REPLIES_UNREAD_MAX = 16 * 1024 * 1024


cdef class ShardQueue(Queue):
    """A queue of this worker; its pump goes on in a later turn when one call did not finish."""

    def __init__(self, WorkerState state, uint32_t id, str name, str vhost, **properties):
        super().__init__(id, name, vhost, **properties)
        self.state = state
        if self.duties:
            self.touch()

    cdef int pump_later(self) except -1:
        return self.state.pump_later(self)

    cdef uint64_t now_ms(self) noexcept:
        return monotonic_ms()       # not the poller's, which may be a long wait old where a timer calls

    cdef int call_at(self, uint64_t moment_ms) except -1:
        self.state.deadlines.set(self, moment_ms)
        return 0

    cdef int dead_letters_came(self) except -1:
        if not self.letters_wait:
            self.letters_wait = True
            self.state.send_letters_later(self)
        return 0

    cdef int unused(self) except -1:
        if self.state.on_unused is not None:
            self.state.on_unused(self)
        return 0

    cdef bint closes_cycle(self, Message* message) except -1:
        """Whether a dead letter has been here before and comes back all by itself: it is dropped, as in RabbitMQ."""
        if not deaths.closes_cycle(message_properties(message)[:message.properties_size], self.name.encode()):
            return False
        if not self.cycle_told:
            self.cycle_told = True
            log.warning("a dead letter came back to queue '%s' in vhost '%s' in a circle and was dropped; told once", self.name, self.vhost)
        return True

    cdef bint is_behind(self) noexcept:
        """Whether it holds so much more than its consumers keep up with that publishers should wait for them."""
        return (self.ready_count > BEHIND_MESSAGES or self.ready_bytes > BEHIND_BYTES) and self.consumer_count > 0


cdef class WorkerState:
    """`index`: of this worker; `worker_count`: how many the node has."""

    def __init__(self, Poller poller, Directory directory, int index, int worker_count, uint64_t message_size_max):
        self.poller = poller
        self.directory = directory
        self.index = index
        self.message_size_max = message_size_max
        # Anywhere, so that what was meant for a channel of the process before us finds none of ours.
        self.last_ref = secrets.randbits(32)
        self.router = Neighbour(self, "router", 0)
        self.workers = [Neighbour(self, "worker", other) if other != index else None for other in range(worker_count)]
        self.committer = Committer(self)
        self.queues = {}
        self.channels = {}
        self.senders = {}
        self.subscriptions = {}
        self.attached = {}
        self.unfinished = []
        self.with_letters = []
        self.deadlines = Deadlines(poller.loop, self.now_ms, lambda queue: queue.come_due())
        self.flowing = []
        self.throttled = {}

    def __dealloc__(self):
        integer_map_free(&self.queue_map)
        integer_map_free(&self.channel_map)
        integer_map_free(&self.subscription_map)
        integer_map_free(&self.attached_map)

    # --- numbers

    cdef uint32_t new_ref(self) noexcept:
        """A number for a channel, subscription or remote consumer. It comes again only after four billion others."""
        self.last_ref += 1
        if self.last_ref == 0:
            self.last_ref = 1
        return self.last_ref

    cdef void* find_queue(self, uint32_t id) noexcept:
        cdef uint64_t* found = integer_map_find(&self.queue_map, id)
        return <void*>found[0] if found != NULL else NULL

    cdef void* find_channel(self, uint32_t ref) noexcept:
        cdef uint64_t* found = integer_map_find(&self.channel_map, ref)
        return <void*>found[0] if found != NULL else NULL

    cdef void* find_subscription(self, uint32_t ref) noexcept:
        cdef uint64_t* found = integer_map_find(&self.subscription_map, ref)
        return <void*>found[0] if found != NULL else NULL

    cdef void* find_attached(self, uint32_t handle) noexcept:
        cdef uint64_t* found = integer_map_find(&self.attached_map, handle)
        return <void*>found[0] if found != NULL else NULL

    def now_ms(self):
        """The monotonic clock, at this moment."""
        return monotonic_ms()

    def add_queue(self, ShardQueue queue):
        integer_map_set(&self.queue_map, queue.id, <uint64_t><void*>queue)
        self.queues[queue.id] = queue

    def remove_queue(self, uint32_t id):
        """Forget the queue and return it (None if it is not ours)."""
        queue = self.queues.pop(id, None)
        integer_map_remove(&self.queue_map, id)
        if queue is not None:
            self.deadlines.forget(queue)
        return queue

    def add_channel(self, Channel channel):
        integer_map_set(&self.channel_map, channel.ref, <uint64_t><void*>channel)
        self.channels[channel.ref] = channel
        self.channels_opened += 1

    def remove_channel(self, Channel channel):
        if self.channels.pop(channel.ref, None) is not None:
            integer_map_remove(&self.channel_map, channel.ref)
            self.channels_closed += 1

    def add_sender(self, Publisher sender):
        """A queue's dead letters are published, and answered, like a channel's messages."""
        integer_map_set(&self.channel_map, sender.ref, <uint64_t><void*>sender)
        self.senders[sender.ref] = sender

    def remove_sender(self, Publisher sender):
        if self.senders.pop(sender.ref, None) is not None:
            integer_map_remove(&self.channel_map, sender.ref)

    def add_subscription(self, Subscription subscription):
        integer_map_set(&self.subscription_map, subscription.ref, <uint64_t><void*>subscription)
        self.subscriptions[subscription.ref] = subscription

    def remove_subscription(self, uint32_t ref):
        if self.subscriptions.pop(ref, None) is not None:
            integer_map_remove(&self.subscription_map, ref)

    def attach(self, RemoteConsumer consumer):
        integer_map_set(&self.attached_map, consumer.handle, <uint64_t><void*>consumer)
        self.attached[consumer.handle] = consumer

    def next_handle(self):
        """A handle for a new remote consumer."""
        return self.new_ref()

    def detach(self, uint32_t handle):
        """Forget the remote consumer and return it, or None."""
        integer_map_remove(&self.attached_map, handle)
        return self.attached.pop(handle, None)

    # --- queues that have more to deliver than one turn's share

    cdef int pump_later(self, ShardQueue queue) except -1:
        self.unfinished.append(queue)
        if not self.pump_called:
            self.pump_called = True
            self.poller.loop.call_soon(self._pump)
        return 0

    def _pump(self):
        cdef ShardQueue queue
        self.pump_called = False
        todo, self.unfinished = self.unfinished, []
        for queue in todo:
            queue.pump()

    cdef int send_letters_later(self, ShardQueue queue) except -1:
        self.with_letters.append(queue)
        if not self.send_called:
            self.send_called = True
            self.poller.loop.call_soon(self._send_letters)
        return 0

    def _send_letters(self):
        cdef ShardQueue queue
        self.send_called = False
        todo, self.with_letters = self.with_letters, []
        for queue in todo:
            queue.letters_wait = False
            queue.sender.send()

    # --- answers to publishes

    cdef int verdict(self, uint32_t channel_ref, uint64_t first, uint32_t count, uint64_t workers) except -1:
        cdef void* found = self.find_channel(channel_ref)
        cdef uint64_t publish_no
        if found != NULL:
            for publish_no in range(first, first + count):
                (<Publisher>found).verdict(publish_no, workers)
        return 0

    cdef int confirm(self, uint32_t channel_ref, uint64_t first, uint32_t count, int worker, uint8_t flags) except -1:
        cdef void* found = self.find_channel(channel_ref)
        cdef uint64_t publish_no
        if found != NULL:
            for publish_no in range(first, first + count):
                (<Publisher>found).answer(publish_no, <uint64_t>1 << worker, flags & CONFIRM_REFUSED, not flags & CONFIRM_NOT_TAKEN)
        return 0

    # --- direct replies

    cdef int reply(self, const uint8_t* name, size_t size, Message* message) except -1:
        """Hand an answer to the requester of that name, wherever it is; to nobody if it has gone. 0: the name is none of ours."""
        place = place_of((<const char*>name)[:size].decode("utf-8", "replace"))
        if place is None:
            return 0
        worker, ref = place
        if worker == self.index:
            self.reply_here(ref, message)
        elif worker < len(self.workers):
            (<Neighbour>self.workers[worker]).send_reply(ref, message)
        return 1

    cdef int reply_here(self, uint32_t ref, Message* message) except -1:
        """The answer has come to its worker: deliver it if the whole name is right. One who does not read loses answers, not our memory."""
        cdef void* found = self.find_subscription(ref)
        cdef Subscription subscription
        if found == NULL:
            return 0
        subscription = <Subscription>found
        if (subscription.reply_name is None or <size_t>len(subscription.reply_name) != message.routing_key_size
                or memcmp(<const char*>subscription.reply_name, message_routing_key(message), message.routing_key_size) != 0
                or unsent(subscription.channel.connection) > REPLIES_UNREAD_MAX):
            return 0
        return subscription.channel.deliver(subscription, message, 0, False)

    def worker_lost(self, int worker, bint routed):
        """A worker has died. routed: the router says so, after its last verdict that named the old process; else our own link broke."""
        cdef Publisher publisher
        for publisher in [*self.channels.values(), *self.senders.values()]:
            if publisher.confirms is not None:
                publisher.confirms.lose_workers(<uint64_t>1 << worker, routed)
                self.poller.want_ending(publisher)

    def router_lost(self):
        """The router has died, and with it every publish that it had and had not passed on."""
        cdef Publisher publisher
        for publisher in [*self.channels.values(), *self.senders.values()]:
            if publisher.confirms is not None:
                publisher.confirms.lose_router()
                self.poller.want_ending(publisher)
        for worker in list(self.throttled):
            self.relieve(worker)

    # --- back-pressure

    cdef int throttle(self, uint32_t channel_ref, int worker) except -1:
        cdef void* found = self.find_channel(channel_ref)
        if found != NULL:
            (<Publisher>found).throttle(worker)
        return 0

    # A publisher can outrun a queue's consumers twenty times over. Unchecked, it would fill the memory and take the time that the
    # consumers' acks need. So when a queue is behind, its publishers are let through a few hundred messages at a time, until it is not.

    cdef int slow_publisher(self, ShardQueue queue, int origin, uint32_t channel_ref) except -1:
        """A message from another worker's channel has met a queue that is behind. Once a millisecond and channel is enough."""
        if queue.slowed_at_ms == self.poller.now_ms and queue.slowed_ref == channel_ref:
            return 0
        queue.slowed_at_ms = self.poller.now_ms
        queue.slowed_ref = channel_ref
        if origin == self.index:
            return self.slow_down(channel_ref)
        if origin < len(self.workers):
            return (<Neighbour>self.workers[origin]).send_slow(channel_ref)
        return 0

    cdef int slow_down(self, uint32_t channel_ref) except -1:
        cdef void* found = self.find_channel(channel_ref)
        if found != NULL:
            (<Publisher>found).slow_down()
        return 0

    cdef int add_flowing(self, Connection connection) except -1:
        if not self.flowing:
            self.poller.loop.call_later(FLOW_TICK_MS / 1000.0, self._flow_tick)
        self.flowing.append(connection)
        return 0

    def _flow_tick(self):
        cdef Connection connection
        flowing, self.flowing = self.flowing, []
        for connection in flowing:
            if connection.flow_tick():
                self.flowing.append(connection)
        if self.flowing:
            self.poller.loop.call_later(FLOW_TICK_MS / 1000.0, self._flow_tick)

    def relieve(self, int worker):
        for publisher in self.throttled.pop(worker, ()):
            publisher.relieve(worker)

    def set_blocked(self, bint blocked, connections):
        """An alarm came or went: connections that publish stop being read, or go on."""
        cdef Connection connection
        self.blocked = blocked
        for connection in connections:
            connection.alarm_changed()

    def totals(self):
        """Counters over the worker's life, under the HTTP API's names."""
        return {
            "message_stats": {
                "publish": self.published,
                "confirm": self.confirmed,
                "return_unroutable": self.returned,
                "drop_unroutable": self.dropped,
                "deliver": self.delivered,
                "deliver_no_ack": self.delivered_no_ack,
                "get": self.got,
                "get_no_ack": self.got_no_ack,
                "deliver_get": self.delivered + self.delivered_no_ack + self.got + self.got_no_ack,
                "redeliver": self.redelivered,
                "ack": self.acked,
                "get_empty": self.get_empty,
            },
            "connections_opened": self.connections_opened,
            "connections_closed": self.connections_closed,
            "channels_opened": self.channels_opened,
            "channels_closed": self.channels_closed,
        }
