# Generated from amqp091.toml by generate.py. Do not edit: change those and run `python codec/generate.py`.
"""C side of `leveret.codec.methods`: a constant per method to switch on, the classes, and decoding from memory."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.wire cimport Buffer

# class id << 16 | method id, as a method frame's payload begins.
cdef enum:
    METHOD_CONNECTION_START = 0x000A000A
    METHOD_CONNECTION_START_OK = 0x000A000B
    METHOD_CONNECTION_SECURE = 0x000A0014
    METHOD_CONNECTION_SECURE_OK = 0x000A0015
    METHOD_CONNECTION_TUNE = 0x000A001E
    METHOD_CONNECTION_TUNE_OK = 0x000A001F
    METHOD_CONNECTION_OPEN = 0x000A0028
    METHOD_CONNECTION_OPEN_OK = 0x000A0029
    METHOD_CONNECTION_CLOSE = 0x000A0032
    METHOD_CONNECTION_CLOSE_OK = 0x000A0033
    METHOD_CONNECTION_BLOCKED = 0x000A003C
    METHOD_CONNECTION_UNBLOCKED = 0x000A003D
    METHOD_CONNECTION_UPDATE_SECRET = 0x000A0046
    METHOD_CONNECTION_UPDATE_SECRET_OK = 0x000A0047
    METHOD_CHANNEL_OPEN = 0x0014000A
    METHOD_CHANNEL_OPEN_OK = 0x0014000B
    METHOD_CHANNEL_FLOW = 0x00140014
    METHOD_CHANNEL_FLOW_OK = 0x00140015
    METHOD_CHANNEL_CLOSE = 0x00140028
    METHOD_CHANNEL_CLOSE_OK = 0x00140029
    METHOD_ACCESS_REQUEST = 0x001E000A
    METHOD_ACCESS_REQUEST_OK = 0x001E000B
    METHOD_EXCHANGE_DECLARE = 0x0028000A
    METHOD_EXCHANGE_DECLARE_OK = 0x0028000B
    METHOD_EXCHANGE_DELETE = 0x00280014
    METHOD_EXCHANGE_DELETE_OK = 0x00280015
    METHOD_EXCHANGE_BIND = 0x0028001E
    METHOD_EXCHANGE_BIND_OK = 0x0028001F
    METHOD_EXCHANGE_UNBIND = 0x00280028
    METHOD_EXCHANGE_UNBIND_OK = 0x00280033
    METHOD_QUEUE_DECLARE = 0x0032000A
    METHOD_QUEUE_DECLARE_OK = 0x0032000B
    METHOD_QUEUE_BIND = 0x00320014
    METHOD_QUEUE_BIND_OK = 0x00320015
    METHOD_QUEUE_PURGE = 0x0032001E
    METHOD_QUEUE_PURGE_OK = 0x0032001F
    METHOD_QUEUE_DELETE = 0x00320028
    METHOD_QUEUE_DELETE_OK = 0x00320029
    METHOD_QUEUE_UNBIND = 0x00320032
    METHOD_QUEUE_UNBIND_OK = 0x00320033
    METHOD_BASIC_QOS = 0x003C000A
    METHOD_BASIC_QOS_OK = 0x003C000B
    METHOD_BASIC_CONSUME = 0x003C0014
    METHOD_BASIC_CONSUME_OK = 0x003C0015
    METHOD_BASIC_CANCEL = 0x003C001E
    METHOD_BASIC_CANCEL_OK = 0x003C001F
    METHOD_BASIC_PUBLISH = 0x003C0028
    METHOD_BASIC_RETURN = 0x003C0032
    METHOD_BASIC_DELIVER = 0x003C003C
    METHOD_BASIC_GET = 0x003C0046
    METHOD_BASIC_GET_OK = 0x003C0047
    METHOD_BASIC_GET_EMPTY = 0x003C0048
    METHOD_BASIC_ACK = 0x003C0050
    METHOD_BASIC_REJECT = 0x003C005A
    METHOD_BASIC_RECOVER_ASYNC = 0x003C0064
    METHOD_BASIC_RECOVER = 0x003C006E
    METHOD_BASIC_RECOVER_OK = 0x003C006F
    METHOD_BASIC_NACK = 0x003C0078
    METHOD_CONFIRM_SELECT = 0x0055000A
    METHOD_CONFIRM_SELECT_OK = 0x0055000B
    METHOD_TX_SELECT = 0x005A000A
    METHOD_TX_SELECT_OK = 0x005A000B
    METHOD_TX_COMMIT = 0x005A0014
    METHOD_TX_COMMIT_OK = 0x005A0015
    METHOD_TX_ROLLBACK = 0x005A001E
    METHOD_TX_ROLLBACK_OK = 0x005A001F


cdef class Method:
    cdef readonly uint32_t kind     # one of the constants above

    cdef int write(self, Buffer* out) except -1
    cdef int write_fields(self, Buffer* out) except -1


# The method that a frame's payload is. Raises AmqpErrors only.
cdef Method decode_method_at(const uint8_t* payload, size_t size)


cdef class ConnectionStart(Method):
    cdef public uint8_t version_major
    cdef public uint8_t version_minor
    cdef public dict server_properties
    cdef public bytes mechanisms
    cdef public bytes locales


cdef class ConnectionStartOk(Method):
    cdef public dict client_properties
    cdef public str mechanism
    cdef public bytes response
    cdef public str locale


cdef class ConnectionSecure(Method):
    cdef public bytes challenge


cdef class ConnectionSecureOk(Method):
    cdef public bytes response


cdef class ConnectionTune(Method):
    cdef public uint16_t channel_max
    cdef public uint32_t frame_max
    cdef public uint16_t heartbeat


cdef class ConnectionTuneOk(Method):
    cdef public uint16_t channel_max
    cdef public uint32_t frame_max
    cdef public uint16_t heartbeat


cdef class ConnectionOpen(Method):
    cdef public str virtual_host


cdef class ConnectionOpenOk(Method):
    pass


cdef class ConnectionClose(Method):
    cdef public uint16_t reply_code
    cdef public str reply_text
    cdef public uint16_t failing_class_id
    cdef public uint16_t failing_method_id


cdef class ConnectionCloseOk(Method):
    pass


cdef class ConnectionBlocked(Method):
    cdef public str reason


cdef class ConnectionUnblocked(Method):
    pass


cdef class ConnectionUpdateSecret(Method):
    cdef public bytes new_secret
    cdef public str reason


cdef class ConnectionUpdateSecretOk(Method):
    pass


cdef class ChannelOpen(Method):
    pass


cdef class ChannelOpenOk(Method):
    pass


cdef class ChannelFlow(Method):
    cdef public bint active


cdef class ChannelFlowOk(Method):
    cdef public bint active


cdef class ChannelClose(Method):
    cdef public uint16_t reply_code
    cdef public str reply_text
    cdef public uint16_t failing_class_id
    cdef public uint16_t failing_method_id


cdef class ChannelCloseOk(Method):
    pass


cdef class AccessRequest(Method):
    cdef public str realm
    cdef public bint exclusive
    cdef public bint passive
    cdef public bint active
    cdef public bint write
    cdef public bint read


cdef class AccessRequestOk(Method):
    cdef public uint16_t ticket


cdef class ExchangeDeclare(Method):
    cdef public str exchange
    cdef public str type
    cdef public bint passive
    cdef public bint durable
    cdef public bint auto_delete
    cdef public bint internal
    cdef public bint nowait
    cdef public dict arguments


cdef class ExchangeDeclareOk(Method):
    pass


cdef class ExchangeDelete(Method):
    cdef public str exchange
    cdef public bint if_unused
    cdef public bint nowait


cdef class ExchangeDeleteOk(Method):
    pass


cdef class ExchangeBind(Method):
    cdef public str destination
    cdef public str source
    cdef public str routing_key
    cdef public bint nowait
    cdef public dict arguments


cdef class ExchangeBindOk(Method):
    pass


cdef class ExchangeUnbind(Method):
    cdef public str destination
    cdef public str source
    cdef public str routing_key
    cdef public bint nowait
    cdef public dict arguments


cdef class ExchangeUnbindOk(Method):
    pass


cdef class QueueDeclare(Method):
    cdef public str queue
    cdef public bint passive
    cdef public bint durable
    cdef public bint exclusive
    cdef public bint auto_delete
    cdef public bint nowait
    cdef public dict arguments


cdef class QueueDeclareOk(Method):
    cdef public str queue
    cdef public uint32_t message_count
    cdef public uint32_t consumer_count


cdef class QueueBind(Method):
    cdef public str queue
    cdef public str exchange
    cdef public str routing_key
    cdef public bint nowait
    cdef public dict arguments


cdef class QueueBindOk(Method):
    pass


cdef class QueuePurge(Method):
    cdef public str queue
    cdef public bint nowait


cdef class QueuePurgeOk(Method):
    cdef public uint32_t message_count


cdef class QueueDelete(Method):
    cdef public str queue
    cdef public bint if_unused
    cdef public bint if_empty
    cdef public bint nowait


cdef class QueueDeleteOk(Method):
    cdef public uint32_t message_count


cdef class QueueUnbind(Method):
    cdef public str queue
    cdef public str exchange
    cdef public str routing_key
    cdef public dict arguments


cdef class QueueUnbindOk(Method):
    pass


cdef class BasicQos(Method):
    cdef public uint32_t prefetch_size
    cdef public uint16_t prefetch_count
    cdef public bint global_qos


cdef class BasicQosOk(Method):
    pass


cdef class BasicConsume(Method):
    cdef public str queue
    cdef public str consumer_tag
    cdef public bint no_local
    cdef public bint no_ack
    cdef public bint exclusive
    cdef public bint nowait
    cdef public dict arguments


cdef class BasicConsumeOk(Method):
    cdef public str consumer_tag


cdef class BasicCancel(Method):
    cdef public str consumer_tag
    cdef public bint nowait


cdef class BasicCancelOk(Method):
    cdef public str consumer_tag


cdef class BasicPublish(Method):
    cdef public str exchange
    cdef public str routing_key
    cdef public bint mandatory
    cdef public bint immediate


cdef class BasicReturn(Method):
    cdef public uint16_t reply_code
    cdef public str reply_text
    cdef public str exchange
    cdef public str routing_key


cdef class BasicDeliver(Method):
    cdef public str consumer_tag
    cdef public uint64_t delivery_tag
    cdef public bint redelivered
    cdef public str exchange
    cdef public str routing_key


cdef class BasicGet(Method):
    cdef public str queue
    cdef public bint no_ack


cdef class BasicGetOk(Method):
    cdef public uint64_t delivery_tag
    cdef public bint redelivered
    cdef public str exchange
    cdef public str routing_key
    cdef public uint32_t message_count


cdef class BasicGetEmpty(Method):
    pass


cdef class BasicAck(Method):
    cdef public uint64_t delivery_tag
    cdef public bint multiple


cdef class BasicReject(Method):
    cdef public uint64_t delivery_tag
    cdef public bint requeue


cdef class BasicRecoverAsync(Method):
    cdef public bint requeue


cdef class BasicRecover(Method):
    cdef public bint requeue


cdef class BasicRecoverOk(Method):
    pass


cdef class BasicNack(Method):
    cdef public uint64_t delivery_tag
    cdef public bint multiple
    cdef public bint requeue


cdef class ConfirmSelect(Method):
    cdef public bint nowait


cdef class ConfirmSelectOk(Method):
    pass


cdef class TxSelect(Method):
    pass


cdef class TxSelectOk(Method):
    pass


cdef class TxCommit(Method):
    pass


cdef class TxCommitOk(Method):
    pass


cdef class TxRollback(Method):
    pass


cdef class TxRollbackOk(Method):
    pass
