"""The luggage of a connection that moves to another worker of the node: what of it, and of its channels, travels beside its socket.

The one table of that state, version 1: `pack` writes it at the worker that the connection leaves, `unpack` makes the same connection out of
it at the worker that has the queues it uses, and `leave_behind` lets the first one go without a word to client or queue. Called by
`leveret.worker.handover`, which decides whether and when; nothing here waits, sends a packet or touches a socket. A field that is added
to a connection or a channel has to be added here too, unless a connection that is quiet (`is_quiet`) cannot have it.

A consumer travels with what its client has not acknowledged: at the queue the `LocalConsumer` of the new channel takes the place of the
`RemoteConsumer` with all that it holds, so delivery tags go on and nothing is delivered twice.

    version, owner, user, impersonator, mechanism, vhost, client_properties (a field table), heartbeat_s, frame_max, channel_max,
    blockable, cancel_notify, publisher, connected_at_ms, moves
    received, sent      bytes, system calls, moment of the last (monotonic, ms)
    unread              bytes that have come and not been looked at
    channels            maps: id, confirming, routed, flow_stopped, last_queue, last_delivery_tag,
        prefetch            four numbers: messages and bytes of each consumer, messages and bytes of all together
        confirms            next publish number, the one before the client's first, refusals; or nothing
        counters            in the order of COUNTERS
        consumers, getters  maps: tag, queue_id, queue_name, no_ack, exclusive, prefetch, prefetch_bytes, arguments, handle
        unacked             [delivery tag, place among consumers and getters, delivery number, flags], oldest first
"""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint32_t

from leveret.codec.wire cimport buffer_unread, buffer_write
from leveret.link.stream cimport unsent
from leveret.queue.ledger cimport Slot, ledger_append, ledger_free
from leveret.worker.channel cimport EXPECTS_METHOD, SLOT_SIZE_MASK, Channel
from leveret.worker.confirms cimport Confirms
from leveret.worker.connection cimport PAUSED_HANDOVER, Connection
from leveret.worker.state cimport WorkerState
from leveret.worker.subscription cimport LocalConsumer, RemoteConsumer, Subscription

from leveret.codec.tables import decode_table, encode_table

LUGGAGE_VERSION = 1
UNACKED_MAX = 8192      # of all channels of a connection together: they travel one by one

COUNTERS = (
    "published", "confirmed", "returned", "delivered", "delivered_no_ack", "redelivered", "acked", "got", "got_no_ack", "get_empty",
)


# --- may it go?

def obstacle(Connection connection not None, int home):
    """What ties the connection to this worker, or to a third, rather than to worker `home`; "" if nothing does."""
    cdef Channel channel
    cdef Subscription subscription
    cdef size_t unacked = 0
    if not connection.open or connection.closed or connection.parted or connection.lost_sync or connection.fd < 0:
        return "it is not open"
    if connection.has_exclusive:
        return "exclusive queues"
    for channel in connection.all_channels():
        if channel.closing:
            return "a channel that closes"
        if channel.transaction is not None:
            return "a transaction"
        if channel.reply_consumer is not None:
            return "a consumer of direct replies"
        if channel.cancelled:
            return "messages of a cancelled consumer"
        for subscription in channel.consumers.values():
            if not comes_from(subscription, home):
                return "a consumer on a queue that is not there"
        for subscription in channel.getters.values():
            if subscription.unacked_count and not comes_from(subscription, home):
                return "messages got from a queue that is not there"
        unacked += channel.unacked.live
    return "many unacked messages" if unacked > UNACKED_MAX else ""


cdef bint comes_from(Subscription subscription, int home):
    return subscription.owner is not None and subscription.owner.index == home and subscription.handle != 0


def is_quiet(Connection connection not None):
    """Whether nothing of it is under way: nothing unsent, no method, publish or confirm half done. True only while it stands still."""
    cdef Channel channel
    if connection.paused != PAUSED_HANDOVER or unsent(connection) or connection.landing != NULL or connection.flush_pending:
        return False
    for channel in connection.all_channels():
        if channel.expects != EXPECTS_METHOD or channel.parked or channel.ending_pending or not all_told(channel.confirms):
            return False
    return True


cdef bint all_told(Confirms confirms):
    return confirms is None or (
        confirms.first == confirms.next and confirms.untold_count == 0 and confirms.ahead_count == 0 and confirms.untaken_count == 0)


def far_consumers(Connection connection not None):
    """Consumers and users of basic.get on other workers' queues: (index of the worker, handle there)."""
    cdef Channel channel
    cdef Subscription subscription
    return [
        (subscription.owner.index, subscription.handle)
        for channel in connection.all_channels()
        for subscription in channel.consumers.values()
        if subscription.owner is not None and subscription.handle
    ]


# --- out

def pack(Connection connection not None):
    """All of a quiet connection as a map for msgpack. Raises TypeError or ValueError if a client's table cannot be written again."""
    session = connection.session
    return {
        "version": LUGGAGE_VERSION,
        "owner": connection.owner,
        "user": connection.user,
        "impersonator": session.impersonator,
        "mechanism": session.mechanism,
        "vhost": connection.vhost.name,
        "client_properties": encode_table(session.client_properties),
        "heartbeat_s": session.heartbeat_s,
        "frame_max": connection.frame_max,
        "channel_max": connection.channel_max,
        "blockable": connection.blockable,
        "cancel_notify": connection.cancel_notify,
        "publisher": connection.publisher,
        "connected_at_ms": connection.connected_at_ms,
        "moves": connection.moves + 1,
        "received": [connection.received_bytes, connection.received_count, connection.received_at_ms],
        "sent": [connection.sent_bytes, connection.sent_count, connection.sent_at_ms],
        "unread": (<const char*>connection.rest.data + connection.rest.start)[:buffer_unread(&connection.rest)],
        "channels": [pack_channel(channel) for channel in connection.all_channels()],
    }


cdef dict pack_channel(Channel channel):
    cdef list travellers = [*channel.consumers.values(), *[getter for getter in channel.getters.values() if getter.unacked_count]]
    cdef dict places = {subscription: place for place, subscription in enumerate(travellers)}
    cdef list unacked = []
    cdef size_t index
    cdef Slot* slot
    for index in range(channel.unacked.head, channel.unacked.tail):
        slot = &channel.unacked.slots[index]
        if slot.item != NULL:
            unacked.append([slot.key, places[<Subscription>slot.item], slot.number, slot.flags])
    return {
        "id": channel.id,
        "confirming": channel.confirming,
        "routed": channel.routed,
        "flow_stopped": channel.flow_stopped,
        "last_queue": channel.last_queue,
        "last_delivery_tag": channel.last_delivery_tag,
        "prefetch": [channel.prefetch, channel.prefetch_bytes, channel.global_prefetch, channel.global_prefetch_bytes],
        "confirms": None if channel.confirms is None else [channel.confirms.next, channel.confirms.base, channel.confirms.refusals],
        "counters": [getattr(channel, name) for name in COUNTERS],
        "consumers": [pack_subscription(subscription) for subscription in travellers if not subscription.getter],
        "getters": [pack_subscription(subscription) for subscription in travellers if subscription.getter],
        "unacked": unacked,
    }


cdef dict pack_subscription(Subscription subscription):
    return {
        "tag": subscription.tag,
        "queue_id": subscription.queue_id,
        "queue_name": subscription.queue_name,
        "no_ack": subscription.no_ack,
        "exclusive": subscription.exclusive,
        "prefetch": subscription.prefetch,
        "prefetch_bytes": subscription.prefetch_bytes,
        "arguments": encode_table(subscription.arguments),
        "handle": subscription.handle,
    }


def leave_behind(Connection connection not None):
    """The other worker has it: forget socket, channels and consumers here. Queues and client are told nothing, for nothing has ended."""
    cdef size_t id
    cdef Channel channel
    connection.closed = True
    connection.let_go()
    for id in range(connection.channels_size):
        if connection.channels[id] == NULL:
            continue
        channel = <Channel>connection.channels[id]
        connection.channels[id] = NULL
        empty(channel)
        Py_DECREF(channel)
    connection.channel_count = 0


cdef int empty(Channel channel) except -1:
    cdef Subscription subscription
    cdef size_t index
    travelled = [*channel.consumers.values()]
    for subscription in channel.getters.values():
        if subscription.unacked_count:
            travelled.append(subscription)
        else:
            subscription.forget()       # it stayed behind and holds nothing
    channel.closing = True
    channel.consumers = {}
    channel.getters = {}
    for index in range(channel.unacked.head, channel.unacked.tail):
        if channel.unacked.slots[index].item != NULL:
            Py_DECREF(<object>channel.unacked.slots[index].item)
    ledger_free(&channel.unacked)
    channel.unacked_bytes = 0
    for subscription in travelled:
        subscription.lose_owner()
    channel.state.remove_channel(channel)
    channel.state.channels_closed -= 1      # it is open, elsewhere
    return 0


# --- in

def unpack(Connection connection not None, vhost, dict luggage not None):
    """Make a fresh connection on the client's socket what its map says, consumers apart: `take_seats` is next."""
    cdef bytes unread = luggage["unread"]
    cdef const uint8_t* data = <const uint8_t*>unread
    session = connection.session
    session.resume(luggage["user"], luggage["impersonator"], luggage["mechanism"], luggage["heartbeat_s"],
                   decode_table(luggage["client_properties"]))
    connection.header_seen = True
    connection.opened(vhost, luggage["user"])
    connection.frame_max = luggage["frame_max"]
    connection.channel_max = luggage["channel_max"]
    connection.blockable = luggage["blockable"]
    connection.cancel_notify = luggage["cancel_notify"]
    connection.publisher = luggage["publisher"]
    connection.connected_at_ms = luggage["connected_at_ms"]
    connection.moves = luggage["moves"]
    connection.received_bytes, connection.received_count, connection.received_at_ms = luggage["received"]
    connection.sent_bytes, connection.sent_count, connection.sent_at_ms = luggage["sent"]
    if unread:
        buffer_write(&connection.rest, data, len(unread))
    for packed in luggage["channels"]:
        unpack_channel(connection, packed)


cdef int unpack_channel(Connection connection, dict packed) except -1:
    cdef Channel channel = connection.place_channel(packed["id"])
    cdef Confirms confirms
    channel.state.channels_opened -= 1      # it was opened elsewhere
    channel.confirming = packed["confirming"]
    channel.routed = packed["routed"]
    channel.flow_stopped = packed["flow_stopped"]
    channel.last_queue = packed["last_queue"]
    channel.last_delivery_tag = packed["last_delivery_tag"]
    channel.prefetch, channel.prefetch_bytes, channel.global_prefetch, channel.global_prefetch_bytes = packed["prefetch"]
    if packed["confirms"] is not None:
        confirms = channel.need_confirms()
        confirms.next, confirms.base, confirms.refusals = packed["confirms"]
        confirms.first = confirms.next
        confirms.told = confirms.next - 1
    (channel.published, channel.confirmed, channel.returned, channel.delivered, channel.delivered_no_ack, channel.redelivered,
     channel.acked, channel.got, channel.got_no_ack, channel.get_empty) = packed["counters"]
    return 0


def take_seats(Connection connection not None, list channels not None):
    """Put the consumers of the packed `channels` into their places at this worker's queues, with what they hold; then let them go on.

    Gives back those whose queue has been deleted on the way: they have no place, and their client is to be told.
    """
    cdef Channel channel
    cdef Subscription subscription
    cdef list gone = []
    cdef dict seated = {}       # queue -> its consumers
    for packed in channels:
        channel = connection.channel_at(packed["id"])
        travellers = [unpack_subscription(channel, each, False) for each in packed["consumers"]]
        travellers += [unpack_subscription(channel, each, True) for each in packed["getters"]]
        for tag, place, number, flags in packed["unacked"]:
            subscription = travellers[place]
            ledger_append(&channel.unacked, tag, <void*>subscription, number, 0, flags)
            Py_INCREF(subscription)
            subscription.unacked_count += 1
            channel.unacked_bytes += <uint32_t>flags & SLOT_SIZE_MASK
        for subscription in travellers:
            if not subscription.getter:
                channel.consumers[subscription.tag] = subscription
                if subscription.consumer is not None:
                    seated.setdefault(subscription.consumer.queue, []).append(subscription.consumer)
                else:
                    gone.append(subscription)
            elif subscription.consumer is not None:
                channel.getters[subscription.queue_id, subscription.no_ack] = subscription
    for queue, consumers in seated.items():
        queue.activate_together(consumers)
    return gone


cdef Subscription unpack_subscription(Channel channel, dict packed, bint getter):
    cdef WorkerState state = channel.state
    cdef Subscription subscription = Subscription(
        channel,
        packed["tag"],
        queue_id=packed["queue_id"],
        queue_name=packed["queue_name"],
        no_ack=packed["no_ack"],
        exclusive=packed["exclusive"],
        prefetch=packed["prefetch"],
        prefetch_bytes=packed["prefetch_bytes"],
        arguments=decode_table(packed["arguments"]),
        getter=getter,
    )
    cdef RemoteConsumer remote = state.detach(packed["handle"])
    cdef LocalConsumer consumer
    if remote is not None and remote.queue is not None:
        consumer = LocalConsumer(subscription)
        remote.queue.replace_consumer(remote, consumer)
        subscription.consumer = consumer
    return subscription


def read_on(Connection connection not None):
    """Serve what came with the luggage, if anything did."""
    if buffer_unread(&connection.rest) and not connection.feed_called:
        connection.feed_called = True
        connection.poller.loop.call_soon(connection._feed_called)
