# Generated from amqp091.toml by generate.py. Do not edit: change those and run `python codec/generate.py`.
# cython: auto_pickle=False
"""Every method of AMQP 0-9-1 and RabbitMQ's extensions as a class: its fields, and its bytes both ways.

Used for everything but the hot path, which reads publish, ack, nack and reject and writes deliver without them. Only values and bytes: what
a method means is the channel's affair. A method's bytes are a frame's payload: class id, method id, fields.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.tables cimport read_longstr, read_shortstr, read_table, write_longstr, write_shortstr, write_table
from leveret.codec.wire cimport (
    Buffer, Cursor, buffer_free, buffer_mark, buffer_rewind, buffer_u8, buffer_u16, buffer_u32, buffer_u64,
    cursor_u8, cursor_u16, cursor_u32, cursor_u64, load_u32,
)

from leveret.codec.errors import CommandInvalid, FrameError, numbered_bytes, quoted_bytes


cdef class Method:
    """What all methods have. Keyword arguments only; two are equal when they are of one class and their fields are.

    class_id, method_id: as on the wire; kind: both in one (class_id << 16 | method_id); name: "queue.declare"; sent_by: "client", "server"
    or "both"; synchronous: whether it is answered, by one of `replies` (names), unless its nowait is set; has_content: whether a content
    header and bodies follow it; fields: the names of its attributes in wire order. Reserved fields are not attributes.
    """

    class_id = 0
    method_id = 0
    name = ""
    sent_by = ""
    synchronous = False
    has_content = False
    replies = ()
    fields = ()

    def encode(self):
        """The payload of its frame, as bytes.

        `TypeError` for a field that is None or of a wrong type, `ValueError` for a short string over 255 bytes and what a table refuses.
        """
        cdef Buffer out = Buffer(NULL, 0, 0, 0)
        try:
            self.write(&out)
            return out.data[:out.length]
        finally:
            buffer_free(&out)

    cdef int write(self, Buffer* out) except -1:
        """Append the payload; on an exception the buffer is as it was."""
        cdef size_t mark = buffer_mark(out)
        try:
            buffer_u32(out, self.kind)
            self.write_fields(out)
        except BaseException:
            buffer_rewind(out, mark)
            raise
        return 0

    cdef int write_fields(self, Buffer* out) except -1:
        return 0

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, field) == getattr(other, field) for field in self.fields)

    __hash__ = None

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{field}={getattr(self, field)!r}' for field in self.fields)})"


cdef class ConnectionStart(Method):
    class_id = 10
    method_id = 10
    name = "connection.start"
    sent_by = "server"
    synchronous = True
    replies = ("connection.start-ok",)
    fields = ("version_major", "version_minor", "server_properties", "mechanisms", "locales")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_START

    def __init__(
        self, *,
        uint8_t version_major=0,
        uint8_t version_minor=9,
        dict server_properties=None,
        bytes mechanisms=b"PLAIN",
        bytes locales=b"en_US",
    ):
        self.version_major = version_major
        self.version_minor = version_minor
        self.server_properties = {} if server_properties is None else server_properties
        self.mechanisms = mechanisms
        self.locales = locales

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u8(out, self.version_major)
        buffer_u8(out, self.version_minor)
        write_table(out, self.server_properties)
        write_longstr(out, self.mechanisms)
        write_longstr(out, self.locales)
        return 0


cdef class ConnectionStartOk(Method):
    class_id = 10
    method_id = 11
    name = "connection.start-ok"
    sent_by = "client"
    fields = ("client_properties", "mechanism", "response", "locale")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_START_OK

    def __init__(
        self, *,
        dict client_properties=None,
        str mechanism="PLAIN",
        bytes response=b"",
        str locale="en_US",
    ):
        self.client_properties = {} if client_properties is None else client_properties
        self.mechanism = mechanism
        self.response = response
        self.locale = locale

    cdef int write_fields(self, Buffer* out) except -1:
        write_table(out, self.client_properties)
        write_shortstr(out, self.mechanism)
        write_longstr(out, self.response)
        write_shortstr(out, self.locale)
        return 0


cdef class ConnectionSecure(Method):
    class_id = 10
    method_id = 20
    name = "connection.secure"
    sent_by = "server"
    synchronous = True
    replies = ("connection.secure-ok",)
    fields = ("challenge",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_SECURE

    def __init__(
        self, *,
        bytes challenge=b"",
    ):
        self.challenge = challenge

    cdef int write_fields(self, Buffer* out) except -1:
        write_longstr(out, self.challenge)
        return 0


cdef class ConnectionSecureOk(Method):
    class_id = 10
    method_id = 21
    name = "connection.secure-ok"
    sent_by = "client"
    fields = ("response",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_SECURE_OK

    def __init__(
        self, *,
        bytes response=b"",
    ):
        self.response = response

    cdef int write_fields(self, Buffer* out) except -1:
        write_longstr(out, self.response)
        return 0


cdef class ConnectionTune(Method):
    class_id = 10
    method_id = 30
    name = "connection.tune"
    sent_by = "server"
    synchronous = True
    replies = ("connection.tune-ok",)
    fields = ("channel_max", "frame_max", "heartbeat")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_TUNE

    def __init__(
        self, *,
        uint16_t channel_max=0,
        uint32_t frame_max=0,
        uint16_t heartbeat=0,
    ):
        self.channel_max = channel_max
        self.frame_max = frame_max
        self.heartbeat = heartbeat

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, self.channel_max)
        buffer_u32(out, self.frame_max)
        buffer_u16(out, self.heartbeat)
        return 0


cdef class ConnectionTuneOk(Method):
    class_id = 10
    method_id = 31
    name = "connection.tune-ok"
    sent_by = "client"
    fields = ("channel_max", "frame_max", "heartbeat")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_TUNE_OK

    def __init__(
        self, *,
        uint16_t channel_max=0,
        uint32_t frame_max=0,
        uint16_t heartbeat=0,
    ):
        self.channel_max = channel_max
        self.frame_max = frame_max
        self.heartbeat = heartbeat

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, self.channel_max)
        buffer_u32(out, self.frame_max)
        buffer_u16(out, self.heartbeat)
        return 0


cdef class ConnectionOpen(Method):
    class_id = 10
    method_id = 40
    name = "connection.open"
    sent_by = "client"
    synchronous = True
    replies = ("connection.open-ok",)
    fields = ("virtual_host",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_OPEN

    def __init__(
        self, *,
        str virtual_host="/",
    ):
        self.virtual_host = virtual_host

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, self.virtual_host)
        write_shortstr(out, "")
        buffer_u8(out, <uint8_t>(0))
        return 0


cdef class ConnectionOpenOk(Method):
    class_id = 10
    method_id = 41
    name = "connection.open-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_OPEN_OK

    def __init__(self):
        pass

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, "")
        return 0


cdef class ConnectionClose(Method):
    class_id = 10
    method_id = 50
    name = "connection.close"
    sent_by = "both"
    synchronous = True
    replies = ("connection.close-ok",)
    fields = ("reply_code", "reply_text", "failing_class_id", "failing_method_id")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_CLOSE

    def __init__(
        self, *,
        uint16_t reply_code=0,
        str reply_text="",
        uint16_t failing_class_id=0,
        uint16_t failing_method_id=0,
    ):
        self.reply_code = reply_code
        self.reply_text = reply_text
        self.failing_class_id = failing_class_id
        self.failing_method_id = failing_method_id

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, self.reply_code)
        write_shortstr(out, self.reply_text)
        buffer_u16(out, self.failing_class_id)
        buffer_u16(out, self.failing_method_id)
        return 0


cdef class ConnectionCloseOk(Method):
    class_id = 10
    method_id = 51
    name = "connection.close-ok"
    sent_by = "both"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_CLOSE_OK

    def __init__(self):
        pass


cdef class ConnectionBlocked(Method):
    class_id = 10
    method_id = 60
    name = "connection.blocked"
    sent_by = "server"
    fields = ("reason",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_BLOCKED

    def __init__(
        self, *,
        str reason="",
    ):
        self.reason = reason

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, self.reason)
        return 0


cdef class ConnectionUnblocked(Method):
    class_id = 10
    method_id = 61
    name = "connection.unblocked"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_UNBLOCKED

    def __init__(self):
        pass


cdef class ConnectionUpdateSecret(Method):
    class_id = 10
    method_id = 70
    name = "connection.update-secret"
    sent_by = "client"
    synchronous = True
    replies = ("connection.update-secret-ok",)
    fields = ("new_secret", "reason")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_UPDATE_SECRET

    def __init__(
        self, *,
        bytes new_secret=b"",
        str reason="",
    ):
        self.new_secret = new_secret
        self.reason = reason

    cdef int write_fields(self, Buffer* out) except -1:
        write_longstr(out, self.new_secret)
        write_shortstr(out, self.reason)
        return 0


cdef class ConnectionUpdateSecretOk(Method):
    class_id = 10
    method_id = 71
    name = "connection.update-secret-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONNECTION_UPDATE_SECRET_OK

    def __init__(self):
        pass


cdef class ChannelOpen(Method):
    class_id = 20
    method_id = 10
    name = "channel.open"
    sent_by = "client"
    synchronous = True
    replies = ("channel.open-ok",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CHANNEL_OPEN

    def __init__(self):
        pass

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, "")
        return 0


cdef class ChannelOpenOk(Method):
    class_id = 20
    method_id = 11
    name = "channel.open-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CHANNEL_OPEN_OK

    def __init__(self):
        pass

    cdef int write_fields(self, Buffer* out) except -1:
        write_longstr(out, b"")
        return 0


cdef class ChannelFlow(Method):
    class_id = 20
    method_id = 20
    name = "channel.flow"
    sent_by = "both"
    synchronous = True
    replies = ("channel.flow-ok",)
    fields = ("active",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CHANNEL_FLOW

    def __init__(
        self, *,
        bint active=False,
    ):
        self.active = active

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u8(out, <uint8_t>(self.active))
        return 0


cdef class ChannelFlowOk(Method):
    class_id = 20
    method_id = 21
    name = "channel.flow-ok"
    sent_by = "both"
    fields = ("active",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CHANNEL_FLOW_OK

    def __init__(
        self, *,
        bint active=False,
    ):
        self.active = active

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u8(out, <uint8_t>(self.active))
        return 0


cdef class ChannelClose(Method):
    class_id = 20
    method_id = 40
    name = "channel.close"
    sent_by = "both"
    synchronous = True
    replies = ("channel.close-ok",)
    fields = ("reply_code", "reply_text", "failing_class_id", "failing_method_id")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CHANNEL_CLOSE

    def __init__(
        self, *,
        uint16_t reply_code=0,
        str reply_text="",
        uint16_t failing_class_id=0,
        uint16_t failing_method_id=0,
    ):
        self.reply_code = reply_code
        self.reply_text = reply_text
        self.failing_class_id = failing_class_id
        self.failing_method_id = failing_method_id

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, self.reply_code)
        write_shortstr(out, self.reply_text)
        buffer_u16(out, self.failing_class_id)
        buffer_u16(out, self.failing_method_id)
        return 0


cdef class ChannelCloseOk(Method):
    class_id = 20
    method_id = 41
    name = "channel.close-ok"
    sent_by = "both"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CHANNEL_CLOSE_OK

    def __init__(self):
        pass


cdef class AccessRequest(Method):
    class_id = 30
    method_id = 10
    name = "access.request"
    sent_by = "client"
    synchronous = True
    replies = ("access.request-ok",)
    fields = ("realm", "exclusive", "passive", "active", "write", "read")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_ACCESS_REQUEST

    def __init__(
        self, *,
        str realm="/data",
        bint exclusive=False,
        bint passive=True,
        bint active=True,
        bint write=True,
        bint read=True,
    ):
        self.realm = realm
        self.exclusive = exclusive
        self.passive = passive
        self.active = active
        self.write = write
        self.read = read

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, self.realm)
        buffer_u8(out, <uint8_t>(self.exclusive | self.passive << 1 | self.active << 2 | self.write << 3 | self.read << 4))
        return 0


cdef class AccessRequestOk(Method):
    class_id = 30
    method_id = 11
    name = "access.request-ok"
    sent_by = "server"
    fields = ("ticket",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_ACCESS_REQUEST_OK

    def __init__(
        self, *,
        uint16_t ticket=1,
    ):
        self.ticket = ticket

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, self.ticket)
        return 0


cdef class ExchangeDeclare(Method):
    class_id = 40
    method_id = 10
    name = "exchange.declare"
    sent_by = "client"
    synchronous = True
    replies = ("exchange.declare-ok",)
    fields = ("exchange", "type", "passive", "durable", "auto_delete", "internal", "nowait", "arguments")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_EXCHANGE_DECLARE

    def __init__(
        self, *,
        str exchange="",
        str type="direct",
        bint passive=False,
        bint durable=False,
        bint auto_delete=False,
        bint internal=False,
        bint nowait=False,
        dict arguments=None,
    ):
        self.exchange = exchange
        self.type = type
        self.passive = passive
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.nowait = nowait
        self.arguments = {} if arguments is None else arguments

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.exchange)
        write_shortstr(out, self.type)
        buffer_u8(out, <uint8_t>(self.passive | self.durable << 1 | self.auto_delete << 2 | self.internal << 3 | self.nowait << 4))
        write_table(out, self.arguments)
        return 0


cdef class ExchangeDeclareOk(Method):
    class_id = 40
    method_id = 11
    name = "exchange.declare-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_EXCHANGE_DECLARE_OK

    def __init__(self):
        pass


cdef class ExchangeDelete(Method):
    class_id = 40
    method_id = 20
    name = "exchange.delete"
    sent_by = "client"
    synchronous = True
    replies = ("exchange.delete-ok",)
    fields = ("exchange", "if_unused", "nowait")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_EXCHANGE_DELETE

    def __init__(
        self, *,
        str exchange="",
        bint if_unused=False,
        bint nowait=False,
    ):
        self.exchange = exchange
        self.if_unused = if_unused
        self.nowait = nowait

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.exchange)
        buffer_u8(out, <uint8_t>(self.if_unused | self.nowait << 1))
        return 0


cdef class ExchangeDeleteOk(Method):
    class_id = 40
    method_id = 21
    name = "exchange.delete-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_EXCHANGE_DELETE_OK

    def __init__(self):
        pass


cdef class ExchangeBind(Method):
    class_id = 40
    method_id = 30
    name = "exchange.bind"
    sent_by = "client"
    synchronous = True
    replies = ("exchange.bind-ok",)
    fields = ("destination", "source", "routing_key", "nowait", "arguments")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_EXCHANGE_BIND

    def __init__(
        self, *,
        str destination="",
        str source="",
        str routing_key="",
        bint nowait=False,
        dict arguments=None,
    ):
        self.destination = destination
        self.source = source
        self.routing_key = routing_key
        self.nowait = nowait
        self.arguments = {} if arguments is None else arguments

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.destination)
        write_shortstr(out, self.source)
        write_shortstr(out, self.routing_key)
        buffer_u8(out, <uint8_t>(self.nowait))
        write_table(out, self.arguments)
        return 0


cdef class ExchangeBindOk(Method):
    class_id = 40
    method_id = 31
    name = "exchange.bind-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_EXCHANGE_BIND_OK

    def __init__(self):
        pass


cdef class ExchangeUnbind(Method):
    class_id = 40
    method_id = 40
    name = "exchange.unbind"
    sent_by = "client"
    synchronous = True
    replies = ("exchange.unbind-ok",)
    fields = ("destination", "source", "routing_key", "nowait", "arguments")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_EXCHANGE_UNBIND

    def __init__(
        self, *,
        str destination="",
        str source="",
        str routing_key="",
        bint nowait=False,
        dict arguments=None,
    ):
        self.destination = destination
        self.source = source
        self.routing_key = routing_key
        self.nowait = nowait
        self.arguments = {} if arguments is None else arguments

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.destination)
        write_shortstr(out, self.source)
        write_shortstr(out, self.routing_key)
        buffer_u8(out, <uint8_t>(self.nowait))
        write_table(out, self.arguments)
        return 0


cdef class ExchangeUnbindOk(Method):
    class_id = 40
    method_id = 51
    name = "exchange.unbind-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_EXCHANGE_UNBIND_OK

    def __init__(self):
        pass


cdef class QueueDeclare(Method):
    class_id = 50
    method_id = 10
    name = "queue.declare"
    sent_by = "client"
    synchronous = True
    replies = ("queue.declare-ok",)
    fields = ("queue", "passive", "durable", "exclusive", "auto_delete", "nowait", "arguments")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_DECLARE

    def __init__(
        self, *,
        str queue="",
        bint passive=False,
        bint durable=False,
        bint exclusive=False,
        bint auto_delete=False,
        bint nowait=False,
        dict arguments=None,
    ):
        self.queue = queue
        self.passive = passive
        self.durable = durable
        self.exclusive = exclusive
        self.auto_delete = auto_delete
        self.nowait = nowait
        self.arguments = {} if arguments is None else arguments

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.queue)
        buffer_u8(out, <uint8_t>(self.passive | self.durable << 1 | self.exclusive << 2 | self.auto_delete << 3 | self.nowait << 4))
        write_table(out, self.arguments)
        return 0


cdef class QueueDeclareOk(Method):
    class_id = 50
    method_id = 11
    name = "queue.declare-ok"
    sent_by = "server"
    fields = ("queue", "message_count", "consumer_count")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_DECLARE_OK

    def __init__(
        self, *,
        str queue="",
        uint32_t message_count=0,
        uint32_t consumer_count=0,
    ):
        self.queue = queue
        self.message_count = message_count
        self.consumer_count = consumer_count

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, self.queue)
        buffer_u32(out, self.message_count)
        buffer_u32(out, self.consumer_count)
        return 0


cdef class QueueBind(Method):
    class_id = 50
    method_id = 20
    name = "queue.bind"
    sent_by = "client"
    synchronous = True
    replies = ("queue.bind-ok",)
    fields = ("queue", "exchange", "routing_key", "nowait", "arguments")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_BIND

    def __init__(
        self, *,
        str queue="",
        str exchange="",
        str routing_key="",
        bint nowait=False,
        dict arguments=None,
    ):
        self.queue = queue
        self.exchange = exchange
        self.routing_key = routing_key
        self.nowait = nowait
        self.arguments = {} if arguments is None else arguments

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.queue)
        write_shortstr(out, self.exchange)
        write_shortstr(out, self.routing_key)
        buffer_u8(out, <uint8_t>(self.nowait))
        write_table(out, self.arguments)
        return 0


cdef class QueueBindOk(Method):
    class_id = 50
    method_id = 21
    name = "queue.bind-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_BIND_OK

    def __init__(self):
        pass


cdef class QueuePurge(Method):
    class_id = 50
    method_id = 30
    name = "queue.purge"
    sent_by = "client"
    synchronous = True
    replies = ("queue.purge-ok",)
    fields = ("queue", "nowait")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_PURGE

    def __init__(
        self, *,
        str queue="",
        bint nowait=False,
    ):
        self.queue = queue
        self.nowait = nowait

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.queue)
        buffer_u8(out, <uint8_t>(self.nowait))
        return 0


cdef class QueuePurgeOk(Method):
    class_id = 50
    method_id = 31
    name = "queue.purge-ok"
    sent_by = "server"
    fields = ("message_count",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_PURGE_OK

    def __init__(
        self, *,
        uint32_t message_count=0,
    ):
        self.message_count = message_count

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u32(out, self.message_count)
        return 0


cdef class QueueDelete(Method):
    class_id = 50
    method_id = 40
    name = "queue.delete"
    sent_by = "client"
    synchronous = True
    replies = ("queue.delete-ok",)
    fields = ("queue", "if_unused", "if_empty", "nowait")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_DELETE

    def __init__(
        self, *,
        str queue="",
        bint if_unused=False,
        bint if_empty=False,
        bint nowait=False,
    ):
        self.queue = queue
        self.if_unused = if_unused
        self.if_empty = if_empty
        self.nowait = nowait

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.queue)
        buffer_u8(out, <uint8_t>(self.if_unused | self.if_empty << 1 | self.nowait << 2))
        return 0


cdef class QueueDeleteOk(Method):
    class_id = 50
    method_id = 41
    name = "queue.delete-ok"
    sent_by = "server"
    fields = ("message_count",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_DELETE_OK

    def __init__(
        self, *,
        uint32_t message_count=0,
    ):
        self.message_count = message_count

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u32(out, self.message_count)
        return 0


cdef class QueueUnbind(Method):
    class_id = 50
    method_id = 50
    name = "queue.unbind"
    sent_by = "client"
    synchronous = True
    replies = ("queue.unbind-ok",)
    fields = ("queue", "exchange", "routing_key", "arguments")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_UNBIND

    def __init__(
        self, *,
        str queue="",
        str exchange="",
        str routing_key="",
        dict arguments=None,
    ):
        self.queue = queue
        self.exchange = exchange
        self.routing_key = routing_key
        self.arguments = {} if arguments is None else arguments

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.queue)
        write_shortstr(out, self.exchange)
        write_shortstr(out, self.routing_key)
        write_table(out, self.arguments)
        return 0


cdef class QueueUnbindOk(Method):
    class_id = 50
    method_id = 51
    name = "queue.unbind-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_QUEUE_UNBIND_OK

    def __init__(self):
        pass


cdef class BasicQos(Method):
    class_id = 60
    method_id = 10
    name = "basic.qos"
    sent_by = "client"
    synchronous = True
    replies = ("basic.qos-ok",)
    fields = ("prefetch_size", "prefetch_count", "global_qos")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_QOS

    def __init__(
        self, *,
        uint32_t prefetch_size=0,
        uint16_t prefetch_count=0,
        bint global_qos=False,
    ):
        self.prefetch_size = prefetch_size
        self.prefetch_count = prefetch_count
        self.global_qos = global_qos

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u32(out, self.prefetch_size)
        buffer_u16(out, self.prefetch_count)
        buffer_u8(out, <uint8_t>(self.global_qos))
        return 0


cdef class BasicQosOk(Method):
    class_id = 60
    method_id = 11
    name = "basic.qos-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_QOS_OK

    def __init__(self):
        pass


cdef class BasicConsume(Method):
    class_id = 60
    method_id = 20
    name = "basic.consume"
    sent_by = "client"
    synchronous = True
    replies = ("basic.consume-ok",)
    fields = ("queue", "consumer_tag", "no_local", "no_ack", "exclusive", "nowait", "arguments")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_CONSUME

    def __init__(
        self, *,
        str queue="",
        str consumer_tag="",
        bint no_local=False,
        bint no_ack=False,
        bint exclusive=False,
        bint nowait=False,
        dict arguments=None,
    ):
        self.queue = queue
        self.consumer_tag = consumer_tag
        self.no_local = no_local
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.nowait = nowait
        self.arguments = {} if arguments is None else arguments

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.queue)
        write_shortstr(out, self.consumer_tag)
        buffer_u8(out, <uint8_t>(self.no_local | self.no_ack << 1 | self.exclusive << 2 | self.nowait << 3))
        write_table(out, self.arguments)
        return 0


cdef class BasicConsumeOk(Method):
    class_id = 60
    method_id = 21
    name = "basic.consume-ok"
    sent_by = "server"
    fields = ("consumer_tag",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_CONSUME_OK

    def __init__(
        self, *,
        str consumer_tag="",
    ):
        self.consumer_tag = consumer_tag

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, self.consumer_tag)
        return 0


cdef class BasicCancel(Method):
    class_id = 60
    method_id = 30
    name = "basic.cancel"
    sent_by = "both"
    synchronous = True
    replies = ("basic.cancel-ok",)
    fields = ("consumer_tag", "nowait")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_CANCEL

    def __init__(
        self, *,
        str consumer_tag="",
        bint nowait=False,
    ):
        self.consumer_tag = consumer_tag
        self.nowait = nowait

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, self.consumer_tag)
        buffer_u8(out, <uint8_t>(self.nowait))
        return 0


cdef class BasicCancelOk(Method):
    class_id = 60
    method_id = 31
    name = "basic.cancel-ok"
    sent_by = "both"
    fields = ("consumer_tag",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_CANCEL_OK

    def __init__(
        self, *,
        str consumer_tag="",
    ):
        self.consumer_tag = consumer_tag

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, self.consumer_tag)
        return 0


cdef class BasicPublish(Method):
    class_id = 60
    method_id = 40
    name = "basic.publish"
    sent_by = "client"
    has_content = True
    fields = ("exchange", "routing_key", "mandatory", "immediate")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_PUBLISH

    def __init__(
        self, *,
        str exchange="",
        str routing_key="",
        bint mandatory=False,
        bint immediate=False,
    ):
        self.exchange = exchange
        self.routing_key = routing_key
        self.mandatory = mandatory
        self.immediate = immediate

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.exchange)
        write_shortstr(out, self.routing_key)
        buffer_u8(out, <uint8_t>(self.mandatory | self.immediate << 1))
        return 0


cdef class BasicReturn(Method):
    class_id = 60
    method_id = 50
    name = "basic.return"
    sent_by = "server"
    has_content = True
    fields = ("reply_code", "reply_text", "exchange", "routing_key")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_RETURN

    def __init__(
        self, *,
        uint16_t reply_code=0,
        str reply_text="",
        str exchange="",
        str routing_key="",
    ):
        self.reply_code = reply_code
        self.reply_text = reply_text
        self.exchange = exchange
        self.routing_key = routing_key

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, self.reply_code)
        write_shortstr(out, self.reply_text)
        write_shortstr(out, self.exchange)
        write_shortstr(out, self.routing_key)
        return 0


cdef class BasicDeliver(Method):
    class_id = 60
    method_id = 60
    name = "basic.deliver"
    sent_by = "server"
    has_content = True
    fields = ("consumer_tag", "delivery_tag", "redelivered", "exchange", "routing_key")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_DELIVER

    def __init__(
        self, *,
        str consumer_tag="",
        uint64_t delivery_tag=0,
        bint redelivered=False,
        str exchange="",
        str routing_key="",
    ):
        self.consumer_tag = consumer_tag
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, self.consumer_tag)
        buffer_u64(out, self.delivery_tag)
        buffer_u8(out, <uint8_t>(self.redelivered))
        write_shortstr(out, self.exchange)
        write_shortstr(out, self.routing_key)
        return 0


cdef class BasicGet(Method):
    class_id = 60
    method_id = 70
    name = "basic.get"
    sent_by = "client"
    synchronous = True
    replies = ("basic.get-ok", "basic.get-empty")
    fields = ("queue", "no_ack")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_GET

    def __init__(
        self, *,
        str queue="",
        bint no_ack=False,
    ):
        self.queue = queue
        self.no_ack = no_ack

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u16(out, 0)
        write_shortstr(out, self.queue)
        buffer_u8(out, <uint8_t>(self.no_ack))
        return 0


cdef class BasicGetOk(Method):
    class_id = 60
    method_id = 71
    name = "basic.get-ok"
    sent_by = "server"
    has_content = True
    fields = ("delivery_tag", "redelivered", "exchange", "routing_key", "message_count")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_GET_OK

    def __init__(
        self, *,
        uint64_t delivery_tag=0,
        bint redelivered=False,
        str exchange="",
        str routing_key="",
        uint32_t message_count=0,
    ):
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.message_count = message_count

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u64(out, self.delivery_tag)
        buffer_u8(out, <uint8_t>(self.redelivered))
        write_shortstr(out, self.exchange)
        write_shortstr(out, self.routing_key)
        buffer_u32(out, self.message_count)
        return 0


cdef class BasicGetEmpty(Method):
    class_id = 60
    method_id = 72
    name = "basic.get-empty"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_GET_EMPTY

    def __init__(self):
        pass

    cdef int write_fields(self, Buffer* out) except -1:
        write_shortstr(out, "")
        return 0


cdef class BasicAck(Method):
    class_id = 60
    method_id = 80
    name = "basic.ack"
    sent_by = "both"
    fields = ("delivery_tag", "multiple")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_ACK

    def __init__(
        self, *,
        uint64_t delivery_tag=0,
        bint multiple=False,
    ):
        self.delivery_tag = delivery_tag
        self.multiple = multiple

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u64(out, self.delivery_tag)
        buffer_u8(out, <uint8_t>(self.multiple))
        return 0


cdef class BasicReject(Method):
    class_id = 60
    method_id = 90
    name = "basic.reject"
    sent_by = "client"
    fields = ("delivery_tag", "requeue")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_REJECT

    def __init__(
        self, *,
        uint64_t delivery_tag=0,
        bint requeue=True,
    ):
        self.delivery_tag = delivery_tag
        self.requeue = requeue

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u64(out, self.delivery_tag)
        buffer_u8(out, <uint8_t>(self.requeue))
        return 0


cdef class BasicRecoverAsync(Method):
    class_id = 60
    method_id = 100
    name = "basic.recover-async"
    sent_by = "client"
    fields = ("requeue",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_RECOVER_ASYNC

    def __init__(
        self, *,
        bint requeue=False,
    ):
        self.requeue = requeue

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u8(out, <uint8_t>(self.requeue))
        return 0


cdef class BasicRecover(Method):
    class_id = 60
    method_id = 110
    name = "basic.recover"
    sent_by = "client"
    synchronous = True
    replies = ("basic.recover-ok",)
    fields = ("requeue",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_RECOVER

    def __init__(
        self, *,
        bint requeue=False,
    ):
        self.requeue = requeue

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u8(out, <uint8_t>(self.requeue))
        return 0


cdef class BasicRecoverOk(Method):
    class_id = 60
    method_id = 111
    name = "basic.recover-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_RECOVER_OK

    def __init__(self):
        pass


cdef class BasicNack(Method):
    class_id = 60
    method_id = 120
    name = "basic.nack"
    sent_by = "both"
    fields = ("delivery_tag", "multiple", "requeue")

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_BASIC_NACK

    def __init__(
        self, *,
        uint64_t delivery_tag=0,
        bint multiple=False,
        bint requeue=True,
    ):
        self.delivery_tag = delivery_tag
        self.multiple = multiple
        self.requeue = requeue

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u64(out, self.delivery_tag)
        buffer_u8(out, <uint8_t>(self.multiple | self.requeue << 1))
        return 0


cdef class ConfirmSelect(Method):
    class_id = 85
    method_id = 10
    name = "confirm.select"
    sent_by = "client"
    synchronous = True
    replies = ("confirm.select-ok",)
    fields = ("nowait",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONFIRM_SELECT

    def __init__(
        self, *,
        bint nowait=False,
    ):
        self.nowait = nowait

    cdef int write_fields(self, Buffer* out) except -1:
        buffer_u8(out, <uint8_t>(self.nowait))
        return 0


cdef class ConfirmSelectOk(Method):
    class_id = 85
    method_id = 11
    name = "confirm.select-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_CONFIRM_SELECT_OK

    def __init__(self):
        pass


cdef class TxSelect(Method):
    class_id = 90
    method_id = 10
    name = "tx.select"
    sent_by = "client"
    synchronous = True
    replies = ("tx.select-ok",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_TX_SELECT

    def __init__(self):
        pass


cdef class TxSelectOk(Method):
    class_id = 90
    method_id = 11
    name = "tx.select-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_TX_SELECT_OK

    def __init__(self):
        pass


cdef class TxCommit(Method):
    class_id = 90
    method_id = 20
    name = "tx.commit"
    sent_by = "client"
    synchronous = True
    replies = ("tx.commit-ok",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_TX_COMMIT

    def __init__(self):
        pass


cdef class TxCommitOk(Method):
    class_id = 90
    method_id = 21
    name = "tx.commit-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_TX_COMMIT_OK

    def __init__(self):
        pass


cdef class TxRollback(Method):
    class_id = 90
    method_id = 30
    name = "tx.rollback"
    sent_by = "client"
    synchronous = True
    replies = ("tx.rollback-ok",)

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_TX_ROLLBACK

    def __init__(self):
        pass


cdef class TxRollbackOk(Method):
    class_id = 90
    method_id = 31
    name = "tx.rollback-ok"
    sent_by = "server"

    def __cinit__(self, *args, **kwargs):
        self.kind = METHOD_TX_ROLLBACK_OK

    def __init__(self):
        pass


METHODS = {
    METHOD_CONNECTION_START: ConnectionStart,
    METHOD_CONNECTION_START_OK: ConnectionStartOk,
    METHOD_CONNECTION_SECURE: ConnectionSecure,
    METHOD_CONNECTION_SECURE_OK: ConnectionSecureOk,
    METHOD_CONNECTION_TUNE: ConnectionTune,
    METHOD_CONNECTION_TUNE_OK: ConnectionTuneOk,
    METHOD_CONNECTION_OPEN: ConnectionOpen,
    METHOD_CONNECTION_OPEN_OK: ConnectionOpenOk,
    METHOD_CONNECTION_CLOSE: ConnectionClose,
    METHOD_CONNECTION_CLOSE_OK: ConnectionCloseOk,
    METHOD_CONNECTION_BLOCKED: ConnectionBlocked,
    METHOD_CONNECTION_UNBLOCKED: ConnectionUnblocked,
    METHOD_CONNECTION_UPDATE_SECRET: ConnectionUpdateSecret,
    METHOD_CONNECTION_UPDATE_SECRET_OK: ConnectionUpdateSecretOk,
    METHOD_CHANNEL_OPEN: ChannelOpen,
    METHOD_CHANNEL_OPEN_OK: ChannelOpenOk,
    METHOD_CHANNEL_FLOW: ChannelFlow,
    METHOD_CHANNEL_FLOW_OK: ChannelFlowOk,
    METHOD_CHANNEL_CLOSE: ChannelClose,
    METHOD_CHANNEL_CLOSE_OK: ChannelCloseOk,
    METHOD_ACCESS_REQUEST: AccessRequest,
    METHOD_ACCESS_REQUEST_OK: AccessRequestOk,
    METHOD_EXCHANGE_DECLARE: ExchangeDeclare,
    METHOD_EXCHANGE_DECLARE_OK: ExchangeDeclareOk,
    METHOD_EXCHANGE_DELETE: ExchangeDelete,
    METHOD_EXCHANGE_DELETE_OK: ExchangeDeleteOk,
    METHOD_EXCHANGE_BIND: ExchangeBind,
    METHOD_EXCHANGE_BIND_OK: ExchangeBindOk,
    METHOD_EXCHANGE_UNBIND: ExchangeUnbind,
    METHOD_EXCHANGE_UNBIND_OK: ExchangeUnbindOk,
    METHOD_QUEUE_DECLARE: QueueDeclare,
    METHOD_QUEUE_DECLARE_OK: QueueDeclareOk,
    METHOD_QUEUE_BIND: QueueBind,
    METHOD_QUEUE_BIND_OK: QueueBindOk,
    METHOD_QUEUE_PURGE: QueuePurge,
    METHOD_QUEUE_PURGE_OK: QueuePurgeOk,
    METHOD_QUEUE_DELETE: QueueDelete,
    METHOD_QUEUE_DELETE_OK: QueueDeleteOk,
    METHOD_QUEUE_UNBIND: QueueUnbind,
    METHOD_QUEUE_UNBIND_OK: QueueUnbindOk,
    METHOD_BASIC_QOS: BasicQos,
    METHOD_BASIC_QOS_OK: BasicQosOk,
    METHOD_BASIC_CONSUME: BasicConsume,
    METHOD_BASIC_CONSUME_OK: BasicConsumeOk,
    METHOD_BASIC_CANCEL: BasicCancel,
    METHOD_BASIC_CANCEL_OK: BasicCancelOk,
    METHOD_BASIC_PUBLISH: BasicPublish,
    METHOD_BASIC_RETURN: BasicReturn,
    METHOD_BASIC_DELIVER: BasicDeliver,
    METHOD_BASIC_GET: BasicGet,
    METHOD_BASIC_GET_OK: BasicGetOk,
    METHOD_BASIC_GET_EMPTY: BasicGetEmpty,
    METHOD_BASIC_ACK: BasicAck,
    METHOD_BASIC_REJECT: BasicReject,
    METHOD_BASIC_RECOVER_ASYNC: BasicRecoverAsync,
    METHOD_BASIC_RECOVER: BasicRecover,
    METHOD_BASIC_RECOVER_OK: BasicRecoverOk,
    METHOD_BASIC_NACK: BasicNack,
    METHOD_CONFIRM_SELECT: ConfirmSelect,
    METHOD_CONFIRM_SELECT_OK: ConfirmSelectOk,
    METHOD_TX_SELECT: TxSelect,
    METHOD_TX_SELECT_OK: TxSelectOk,
    METHOD_TX_COMMIT: TxCommit,
    METHOD_TX_COMMIT_OK: TxCommitOk,
    METHOD_TX_ROLLBACK: TxRollback,
    METHOD_TX_ROLLBACK_OK: TxRollbackOk,
}


cdef ConnectionStart _read_connection_start(Cursor* at):
    cdef ConnectionStart method = ConnectionStart.__new__(ConnectionStart)
    method.version_major = cursor_u8(at)
    method.version_minor = cursor_u8(at)
    method.server_properties = read_table(at, False)
    method.mechanisms = read_longstr(at)
    method.locales = read_longstr(at)
    return method


cdef ConnectionStartOk _read_connection_start_ok(Cursor* at):
    cdef ConnectionStartOk method = ConnectionStartOk.__new__(ConnectionStartOk)
    method.client_properties = read_table(at, False)
    method.mechanism = read_shortstr(at)
    method.response = read_longstr(at)
    method.locale = read_shortstr(at)
    return method


cdef ConnectionSecure _read_connection_secure(Cursor* at):
    cdef ConnectionSecure method = ConnectionSecure.__new__(ConnectionSecure)
    method.challenge = read_longstr(at)
    return method


cdef ConnectionSecureOk _read_connection_secure_ok(Cursor* at):
    cdef ConnectionSecureOk method = ConnectionSecureOk.__new__(ConnectionSecureOk)
    method.response = read_longstr(at)
    return method


cdef ConnectionTune _read_connection_tune(Cursor* at):
    cdef ConnectionTune method = ConnectionTune.__new__(ConnectionTune)
    method.channel_max = cursor_u16(at)
    method.frame_max = cursor_u32(at)
    method.heartbeat = cursor_u16(at)
    return method


cdef ConnectionTuneOk _read_connection_tune_ok(Cursor* at):
    cdef ConnectionTuneOk method = ConnectionTuneOk.__new__(ConnectionTuneOk)
    method.channel_max = cursor_u16(at)
    method.frame_max = cursor_u32(at)
    method.heartbeat = cursor_u16(at)
    return method


cdef ConnectionOpen _read_connection_open(Cursor* at):
    cdef ConnectionOpen method = ConnectionOpen.__new__(ConnectionOpen)
    method.virtual_host = read_shortstr(at)
    read_shortstr(at)
    cursor_u8(at)
    return method


cdef ConnectionOpenOk _read_connection_open_ok(Cursor* at):
    cdef ConnectionOpenOk method = ConnectionOpenOk.__new__(ConnectionOpenOk)
    read_shortstr(at)
    return method


cdef ConnectionClose _read_connection_close(Cursor* at):
    cdef ConnectionClose method = ConnectionClose.__new__(ConnectionClose)
    method.reply_code = cursor_u16(at)
    method.reply_text = read_shortstr(at)
    method.failing_class_id = cursor_u16(at)
    method.failing_method_id = cursor_u16(at)
    return method


cdef ConnectionBlocked _read_connection_blocked(Cursor* at):
    cdef ConnectionBlocked method = ConnectionBlocked.__new__(ConnectionBlocked)
    method.reason = read_shortstr(at)
    return method


cdef ConnectionUpdateSecret _read_connection_update_secret(Cursor* at):
    cdef ConnectionUpdateSecret method = ConnectionUpdateSecret.__new__(ConnectionUpdateSecret)
    method.new_secret = read_longstr(at)
    method.reason = read_shortstr(at)
    return method


cdef ChannelOpen _read_channel_open(Cursor* at):
    cdef ChannelOpen method = ChannelOpen.__new__(ChannelOpen)
    read_shortstr(at)
    return method


cdef ChannelOpenOk _read_channel_open_ok(Cursor* at):
    cdef ChannelOpenOk method = ChannelOpenOk.__new__(ChannelOpenOk)
    read_longstr(at)
    return method


cdef ChannelFlow _read_channel_flow(Cursor* at):
    cdef uint8_t bits
    cdef ChannelFlow method = ChannelFlow.__new__(ChannelFlow)
    bits = cursor_u8(at)
    method.active = bits & 1 != 0
    return method


cdef ChannelFlowOk _read_channel_flow_ok(Cursor* at):
    cdef uint8_t bits
    cdef ChannelFlowOk method = ChannelFlowOk.__new__(ChannelFlowOk)
    bits = cursor_u8(at)
    method.active = bits & 1 != 0
    return method


cdef ChannelClose _read_channel_close(Cursor* at):
    cdef ChannelClose method = ChannelClose.__new__(ChannelClose)
    method.reply_code = cursor_u16(at)
    method.reply_text = read_shortstr(at)
    method.failing_class_id = cursor_u16(at)
    method.failing_method_id = cursor_u16(at)
    return method


cdef AccessRequest _read_access_request(Cursor* at):
    cdef uint8_t bits
    cdef AccessRequest method = AccessRequest.__new__(AccessRequest)
    method.realm = read_shortstr(at)
    bits = cursor_u8(at)
    method.exclusive = bits & 1 != 0
    method.passive = bits & 2 != 0
    method.active = bits & 4 != 0
    method.write = bits & 8 != 0
    method.read = bits & 16 != 0
    return method


cdef AccessRequestOk _read_access_request_ok(Cursor* at):
    cdef AccessRequestOk method = AccessRequestOk.__new__(AccessRequestOk)
    method.ticket = cursor_u16(at)
    return method


cdef ExchangeDeclare _read_exchange_declare(Cursor* at):
    cdef uint8_t bits
    cdef ExchangeDeclare method = ExchangeDeclare.__new__(ExchangeDeclare)
    cursor_u16(at)
    method.exchange = read_shortstr(at)
    method.type = read_shortstr(at)
    bits = cursor_u8(at)
    method.passive = bits & 1 != 0
    method.durable = bits & 2 != 0
    method.auto_delete = bits & 4 != 0
    method.internal = bits & 8 != 0
    method.nowait = bits & 16 != 0
    method.arguments = read_table(at, False)
    return method


cdef ExchangeDelete _read_exchange_delete(Cursor* at):
    cdef uint8_t bits
    cdef ExchangeDelete method = ExchangeDelete.__new__(ExchangeDelete)
    cursor_u16(at)
    method.exchange = read_shortstr(at)
    bits = cursor_u8(at)
    method.if_unused = bits & 1 != 0
    method.nowait = bits & 2 != 0
    return method


cdef ExchangeBind _read_exchange_bind(Cursor* at):
    cdef uint8_t bits
    cdef ExchangeBind method = ExchangeBind.__new__(ExchangeBind)
    cursor_u16(at)
    method.destination = read_shortstr(at)
    method.source = read_shortstr(at)
    method.routing_key = read_shortstr(at)
    bits = cursor_u8(at)
    method.nowait = bits & 1 != 0
    method.arguments = read_table(at, False)
    return method


cdef ExchangeUnbind _read_exchange_unbind(Cursor* at):
    cdef uint8_t bits
    cdef ExchangeUnbind method = ExchangeUnbind.__new__(ExchangeUnbind)
    cursor_u16(at)
    method.destination = read_shortstr(at)
    method.source = read_shortstr(at)
    method.routing_key = read_shortstr(at)
    bits = cursor_u8(at)
    method.nowait = bits & 1 != 0
    method.arguments = read_table(at, False)
    return method


cdef QueueDeclare _read_queue_declare(Cursor* at):
    cdef uint8_t bits
    cdef QueueDeclare method = QueueDeclare.__new__(QueueDeclare)
    cursor_u16(at)
    method.queue = read_shortstr(at)
    bits = cursor_u8(at)
    method.passive = bits & 1 != 0
    method.durable = bits & 2 != 0
    method.exclusive = bits & 4 != 0
    method.auto_delete = bits & 8 != 0
    method.nowait = bits & 16 != 0
    method.arguments = read_table(at, False)
    return method


cdef QueueDeclareOk _read_queue_declare_ok(Cursor* at):
    cdef QueueDeclareOk method = QueueDeclareOk.__new__(QueueDeclareOk)
    method.queue = read_shortstr(at)
    method.message_count = cursor_u32(at)
    method.consumer_count = cursor_u32(at)
    return method


cdef QueueBind _read_queue_bind(Cursor* at):
    cdef uint8_t bits
    cdef QueueBind method = QueueBind.__new__(QueueBind)
    cursor_u16(at)
    method.queue = read_shortstr(at)
    method.exchange = read_shortstr(at)
    method.routing_key = read_shortstr(at)
    bits = cursor_u8(at)
    method.nowait = bits & 1 != 0
    method.arguments = read_table(at, False)
    return method


cdef QueuePurge _read_queue_purge(Cursor* at):
    cdef uint8_t bits
    cdef QueuePurge method = QueuePurge.__new__(QueuePurge)
    cursor_u16(at)
    method.queue = read_shortstr(at)
    bits = cursor_u8(at)
    method.nowait = bits & 1 != 0
    return method


cdef QueuePurgeOk _read_queue_purge_ok(Cursor* at):
    cdef QueuePurgeOk method = QueuePurgeOk.__new__(QueuePurgeOk)
    method.message_count = cursor_u32(at)
    return method


cdef QueueDelete _read_queue_delete(Cursor* at):
    cdef uint8_t bits
    cdef QueueDelete method = QueueDelete.__new__(QueueDelete)
    cursor_u16(at)
    method.queue = read_shortstr(at)
    bits = cursor_u8(at)
    method.if_unused = bits & 1 != 0
    method.if_empty = bits & 2 != 0
    method.nowait = bits & 4 != 0
    return method


cdef QueueDeleteOk _read_queue_delete_ok(Cursor* at):
    cdef QueueDeleteOk method = QueueDeleteOk.__new__(QueueDeleteOk)
    method.message_count = cursor_u32(at)
    return method


cdef QueueUnbind _read_queue_unbind(Cursor* at):
    cdef QueueUnbind method = QueueUnbind.__new__(QueueUnbind)
    cursor_u16(at)
    method.queue = read_shortstr(at)
    method.exchange = read_shortstr(at)
    method.routing_key = read_shortstr(at)
    method.arguments = read_table(at, False)
    return method


cdef BasicQos _read_basic_qos(Cursor* at):
    cdef uint8_t bits
    cdef BasicQos method = BasicQos.__new__(BasicQos)
    method.prefetch_size = cursor_u32(at)
    method.prefetch_count = cursor_u16(at)
    bits = cursor_u8(at)
    method.global_qos = bits & 1 != 0
    return method


cdef BasicConsume _read_basic_consume(Cursor* at):
    cdef uint8_t bits
    cdef BasicConsume method = BasicConsume.__new__(BasicConsume)
    cursor_u16(at)
    method.queue = read_shortstr(at)
    method.consumer_tag = read_shortstr(at)
    bits = cursor_u8(at)
    method.no_local = bits & 1 != 0
    method.no_ack = bits & 2 != 0
    method.exclusive = bits & 4 != 0
    method.nowait = bits & 8 != 0
    method.arguments = read_table(at, False)
    return method


cdef BasicConsumeOk _read_basic_consume_ok(Cursor* at):
    cdef BasicConsumeOk method = BasicConsumeOk.__new__(BasicConsumeOk)
    method.consumer_tag = read_shortstr(at)
    return method


cdef BasicCancel _read_basic_cancel(Cursor* at):
    cdef uint8_t bits
    cdef BasicCancel method = BasicCancel.__new__(BasicCancel)
    method.consumer_tag = read_shortstr(at)
    bits = cursor_u8(at)
    method.nowait = bits & 1 != 0
    return method


cdef BasicCancelOk _read_basic_cancel_ok(Cursor* at):
    cdef BasicCancelOk method = BasicCancelOk.__new__(BasicCancelOk)
    method.consumer_tag = read_shortstr(at)
    return method


cdef BasicPublish _read_basic_publish(Cursor* at):
    cdef uint8_t bits
    cdef BasicPublish method = BasicPublish.__new__(BasicPublish)
    cursor_u16(at)
    method.exchange = read_shortstr(at)
    method.routing_key = read_shortstr(at)
    bits = cursor_u8(at)
    method.mandatory = bits & 1 != 0
    method.immediate = bits & 2 != 0
    return method


cdef BasicReturn _read_basic_return(Cursor* at):
    cdef BasicReturn method = BasicReturn.__new__(BasicReturn)
    method.reply_code = cursor_u16(at)
    method.reply_text = read_shortstr(at)
    method.exchange = read_shortstr(at)
    method.routing_key = read_shortstr(at)
    return method


cdef BasicDeliver _read_basic_deliver(Cursor* at):
    cdef uint8_t bits
    cdef BasicDeliver method = BasicDeliver.__new__(BasicDeliver)
    method.consumer_tag = read_shortstr(at)
    method.delivery_tag = cursor_u64(at)
    bits = cursor_u8(at)
    method.redelivered = bits & 1 != 0
    method.exchange = read_shortstr(at)
    method.routing_key = read_shortstr(at)
    return method


cdef BasicGet _read_basic_get(Cursor* at):
    cdef uint8_t bits
    cdef BasicGet method = BasicGet.__new__(BasicGet)
    cursor_u16(at)
    method.queue = read_shortstr(at)
    bits = cursor_u8(at)
    method.no_ack = bits & 1 != 0
    return method


cdef BasicGetOk _read_basic_get_ok(Cursor* at):
    cdef uint8_t bits
    cdef BasicGetOk method = BasicGetOk.__new__(BasicGetOk)
    method.delivery_tag = cursor_u64(at)
    bits = cursor_u8(at)
    method.redelivered = bits & 1 != 0
    method.exchange = read_shortstr(at)
    method.routing_key = read_shortstr(at)
    method.message_count = cursor_u32(at)
    return method


cdef BasicGetEmpty _read_basic_get_empty(Cursor* at):
    cdef BasicGetEmpty method = BasicGetEmpty.__new__(BasicGetEmpty)
    read_shortstr(at)
    return method


cdef BasicAck _read_basic_ack(Cursor* at):
    cdef uint8_t bits
    cdef BasicAck method = BasicAck.__new__(BasicAck)
    method.delivery_tag = cursor_u64(at)
    bits = cursor_u8(at)
    method.multiple = bits & 1 != 0
    return method


cdef BasicReject _read_basic_reject(Cursor* at):
    cdef uint8_t bits
    cdef BasicReject method = BasicReject.__new__(BasicReject)
    method.delivery_tag = cursor_u64(at)
    bits = cursor_u8(at)
    method.requeue = bits & 1 != 0
    return method


cdef BasicRecoverAsync _read_basic_recover_async(Cursor* at):
    cdef uint8_t bits
    cdef BasicRecoverAsync method = BasicRecoverAsync.__new__(BasicRecoverAsync)
    bits = cursor_u8(at)
    method.requeue = bits & 1 != 0
    return method


cdef BasicRecover _read_basic_recover(Cursor* at):
    cdef uint8_t bits
    cdef BasicRecover method = BasicRecover.__new__(BasicRecover)
    bits = cursor_u8(at)
    method.requeue = bits & 1 != 0
    return method


cdef BasicNack _read_basic_nack(Cursor* at):
    cdef uint8_t bits
    cdef BasicNack method = BasicNack.__new__(BasicNack)
    method.delivery_tag = cursor_u64(at)
    bits = cursor_u8(at)
    method.multiple = bits & 1 != 0
    method.requeue = bits & 2 != 0
    return method


cdef ConfirmSelect _read_confirm_select(Cursor* at):
    cdef uint8_t bits
    cdef ConfirmSelect method = ConfirmSelect.__new__(ConfirmSelect)
    bits = cursor_u8(at)
    method.nowait = bits & 1 != 0
    return method


cdef Method _read(uint32_t kind, Cursor* at):
    if kind == METHOD_CONNECTION_START:
        return _read_connection_start(at)
    if kind == METHOD_CONNECTION_START_OK:
        return _read_connection_start_ok(at)
    if kind == METHOD_CONNECTION_SECURE:
        return _read_connection_secure(at)
    if kind == METHOD_CONNECTION_SECURE_OK:
        return _read_connection_secure_ok(at)
    if kind == METHOD_CONNECTION_TUNE:
        return _read_connection_tune(at)
    if kind == METHOD_CONNECTION_TUNE_OK:
        return _read_connection_tune_ok(at)
    if kind == METHOD_CONNECTION_OPEN:
        return _read_connection_open(at)
    if kind == METHOD_CONNECTION_OPEN_OK:
        return _read_connection_open_ok(at)
    if kind == METHOD_CONNECTION_CLOSE:
        return _read_connection_close(at)
    if kind == METHOD_CONNECTION_CLOSE_OK:
        return ConnectionCloseOk.__new__(ConnectionCloseOk)
    if kind == METHOD_CONNECTION_BLOCKED:
        return _read_connection_blocked(at)
    if kind == METHOD_CONNECTION_UNBLOCKED:
        return ConnectionUnblocked.__new__(ConnectionUnblocked)
    if kind == METHOD_CONNECTION_UPDATE_SECRET:
        return _read_connection_update_secret(at)
    if kind == METHOD_CONNECTION_UPDATE_SECRET_OK:
        return ConnectionUpdateSecretOk.__new__(ConnectionUpdateSecretOk)
    if kind == METHOD_CHANNEL_OPEN:
        return _read_channel_open(at)
    if kind == METHOD_CHANNEL_OPEN_OK:
        return _read_channel_open_ok(at)
    if kind == METHOD_CHANNEL_FLOW:
        return _read_channel_flow(at)
    if kind == METHOD_CHANNEL_FLOW_OK:
        return _read_channel_flow_ok(at)
    if kind == METHOD_CHANNEL_CLOSE:
        return _read_channel_close(at)
    if kind == METHOD_CHANNEL_CLOSE_OK:
        return ChannelCloseOk.__new__(ChannelCloseOk)
    if kind == METHOD_ACCESS_REQUEST:
        return _read_access_request(at)
    if kind == METHOD_ACCESS_REQUEST_OK:
        return _read_access_request_ok(at)
    if kind == METHOD_EXCHANGE_DECLARE:
        return _read_exchange_declare(at)
    if kind == METHOD_EXCHANGE_DECLARE_OK:
        return ExchangeDeclareOk.__new__(ExchangeDeclareOk)
    if kind == METHOD_EXCHANGE_DELETE:
        return _read_exchange_delete(at)
    if kind == METHOD_EXCHANGE_DELETE_OK:
        return ExchangeDeleteOk.__new__(ExchangeDeleteOk)
    if kind == METHOD_EXCHANGE_BIND:
        return _read_exchange_bind(at)
    if kind == METHOD_EXCHANGE_BIND_OK:
        return ExchangeBindOk.__new__(ExchangeBindOk)
    if kind == METHOD_EXCHANGE_UNBIND:
        return _read_exchange_unbind(at)
    if kind == METHOD_EXCHANGE_UNBIND_OK:
        return ExchangeUnbindOk.__new__(ExchangeUnbindOk)
    if kind == METHOD_QUEUE_DECLARE:
        return _read_queue_declare(at)
    if kind == METHOD_QUEUE_DECLARE_OK:
        return _read_queue_declare_ok(at)
    if kind == METHOD_QUEUE_BIND:
        return _read_queue_bind(at)
    if kind == METHOD_QUEUE_BIND_OK:
        return QueueBindOk.__new__(QueueBindOk)
    if kind == METHOD_QUEUE_PURGE:
        return _read_queue_purge(at)
    if kind == METHOD_QUEUE_PURGE_OK:
        return _read_queue_purge_ok(at)
    if kind == METHOD_QUEUE_DELETE:
        return _read_queue_delete(at)
    if kind == METHOD_QUEUE_DELETE_OK:
        return _read_queue_delete_ok(at)
    if kind == METHOD_QUEUE_UNBIND:
        return _read_queue_unbind(at)
    if kind == METHOD_QUEUE_UNBIND_OK:
        return QueueUnbindOk.__new__(QueueUnbindOk)
    if kind == METHOD_BASIC_QOS:
        return _read_basic_qos(at)
    if kind == METHOD_BASIC_QOS_OK:
        return BasicQosOk.__new__(BasicQosOk)
    if kind == METHOD_BASIC_CONSUME:
        return _read_basic_consume(at)
    if kind == METHOD_BASIC_CONSUME_OK:
        return _read_basic_consume_ok(at)
    if kind == METHOD_BASIC_CANCEL:
        return _read_basic_cancel(at)
    if kind == METHOD_BASIC_CANCEL_OK:
        return _read_basic_cancel_ok(at)
    if kind == METHOD_BASIC_PUBLISH:
        return _read_basic_publish(at)
    if kind == METHOD_BASIC_RETURN:
        return _read_basic_return(at)
    if kind == METHOD_BASIC_DELIVER:
        return _read_basic_deliver(at)
    if kind == METHOD_BASIC_GET:
        return _read_basic_get(at)
    if kind == METHOD_BASIC_GET_OK:
        return _read_basic_get_ok(at)
    if kind == METHOD_BASIC_GET_EMPTY:
        return _read_basic_get_empty(at)
    if kind == METHOD_BASIC_ACK:
        return _read_basic_ack(at)
    if kind == METHOD_BASIC_REJECT:
        return _read_basic_reject(at)
    if kind == METHOD_BASIC_RECOVER_ASYNC:
        return _read_basic_recover_async(at)
    if kind == METHOD_BASIC_RECOVER:
        return _read_basic_recover(at)
    if kind == METHOD_BASIC_RECOVER_OK:
        return BasicRecoverOk.__new__(BasicRecoverOk)
    if kind == METHOD_BASIC_NACK:
        return _read_basic_nack(at)
    if kind == METHOD_CONFIRM_SELECT:
        return _read_confirm_select(at)
    if kind == METHOD_CONFIRM_SELECT_OK:
        return ConfirmSelectOk.__new__(ConfirmSelectOk)
    if kind == METHOD_TX_SELECT:
        return TxSelect.__new__(TxSelect)
    if kind == METHOD_TX_SELECT_OK:
        return TxSelectOk.__new__(TxSelectOk)
    if kind == METHOD_TX_COMMIT:
        return TxCommit.__new__(TxCommit)
    if kind == METHOD_TX_COMMIT_OK:
        return TxCommitOk.__new__(TxCommitOk)
    if kind == METHOD_TX_ROLLBACK:
        return TxRollback.__new__(TxRollback)
    if kind == METHOD_TX_ROLLBACK_OK:
        return TxRollbackOk.__new__(TxRollbackOk)
    return None


def decode_method(bytes payload not None):
    """The method that a method frame's payload is.

    Raises `CommandInvalid` (503) for ids that no method has; `FrameError` (501) for fields that are cut short, for bytes left over and for
    a short string that is not UTF-8, in RabbitMQ's words, and for a malformed table (RabbitMQ drops the connection without a word);
    `CommandSyntaxError` (502) for a table nested deeper than 32.
    """
    return decode_method_at(<const uint8_t*>payload, len(payload))


cdef Method decode_method_at(const uint8_t* payload, size_t size):
    cdef Cursor at
    cdef Method method
    cdef size_t shown = size if size < 260 else 260     # a reply text holds 255 bytes; more would be cut from it
    if size < 4:
        raise FrameError(f"type 1, all octets = {quoted_bytes(payload[:size])}: unknown_frame")
    at.at = payload + 4
    at.end = payload + size
    at.failed = False
    method = _read(load_u32(payload), &at)
    if method is None:
        raise CommandInvalid("unimplemented method")
    if at.failed or at.at != at.end:
        raise FrameError(f"cannot decode {numbered_bytes(payload[4:shown])}", method)
    return method
