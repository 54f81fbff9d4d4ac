# Generated from amqp091.toml by generate.py. Do not edit: change those and run `python codec/generate.py`.
from typing import Any, ClassVar, Final

class Method:
    class_id: ClassVar[int]
    method_id: ClassVar[int]
    name: ClassVar[str]
    sent_by: ClassVar[str]
    synchronous: ClassVar[bool]
    has_content: ClassVar[bool]
    replies: ClassVar[tuple[str, ...]]
    fields: ClassVar[tuple[str, ...]]
    @property
    def kind(self) -> int: ...
    def encode(self) -> bytes: ...
    def __eq__(self, other: object) -> bool: ...

class ConnectionStart(Method):
    version_major: int
    version_minor: int
    server_properties: dict[str, Any]
    mechanisms: bytes
    locales: bytes
    def __init__(
        self,
        *,
        version_major: int = 0,
        version_minor: int = 9,
        server_properties: dict[str, Any] | None = None,
        mechanisms: bytes = b"PLAIN",
        locales: bytes = b"en_US",
    ) -> None: ...

class ConnectionStartOk(Method):
    client_properties: dict[str, Any]
    mechanism: str
    response: bytes
    locale: str
    def __init__(
        self,
        *,
        client_properties: dict[str, Any] | None = None,
        mechanism: str = "PLAIN",
        response: bytes = b"",
        locale: str = "en_US",
    ) -> None: ...

class ConnectionSecure(Method):
    challenge: bytes
    def __init__(
        self,
        *,
        challenge: bytes = b"",
    ) -> None: ...

class ConnectionSecureOk(Method):
    response: bytes
    def __init__(
        self,
        *,
        response: bytes = b"",
    ) -> None: ...

class ConnectionTune(Method):
    channel_max: int
    frame_max: int
    heartbeat: int
    def __init__(
        self,
        *,
        channel_max: int = 0,
        frame_max: int = 0,
        heartbeat: int = 0,
    ) -> None: ...

class ConnectionTuneOk(Method):
    channel_max: int
    frame_max: int
    heartbeat: int
    def __init__(
        self,
        *,
        channel_max: int = 0,
        frame_max: int = 0,
        heartbeat: int = 0,
    ) -> None: ...

class ConnectionOpen(Method):
    virtual_host: str
    def __init__(
        self,
        *,
        virtual_host: str = "/",
    ) -> None: ...

class ConnectionOpenOk(Method):
    def __init__(self) -> None: ...

class ConnectionClose(Method):
    reply_code: int
    reply_text: str
    failing_class_id: int
    failing_method_id: int
    def __init__(
        self,
        *,
        reply_code: int = 0,
        reply_text: str = "",
        failing_class_id: int = 0,
        failing_method_id: int = 0,
    ) -> None: ...

class ConnectionCloseOk(Method):
    def __init__(self) -> None: ...

class ConnectionBlocked(Method):
    reason: str
    def __init__(
        self,
        *,
        reason: str = "",
    ) -> None: ...

class ConnectionUnblocked(Method):
    def __init__(self) -> None: ...

class ConnectionUpdateSecret(Method):
    new_secret: bytes
    reason: str
    def __init__(
        self,
        *,
        new_secret: bytes = b"",
        reason: str = "",
    ) -> None: ...

class ConnectionUpdateSecretOk(Method):
    def __init__(self) -> None: ...

class ChannelOpen(Method):
    def __init__(self) -> None: ...

class ChannelOpenOk(Method):
    def __init__(self) -> None: ...

class ChannelFlow(Method):
    active: bool
    def __init__(
        self,
        *,
        active: bool = False,
    ) -> None: ...

class ChannelFlowOk(Method):
    active: bool
    def __init__(
        self,
        *,
        active: bool = False,
    ) -> None: ...

class ChannelClose(Method):
    reply_code: int
    reply_text: str
    failing_class_id: int
    failing_method_id: int
    def __init__(
        self,
        *,
        reply_code: int = 0,
        reply_text: str = "",
        failing_class_id: int = 0,
        failing_method_id: int = 0,
    ) -> None: ...

class ChannelCloseOk(Method):
    def __init__(self) -> None: ...

class AccessRequest(Method):
    realm: str
    exclusive: bool
    passive: bool
    active: bool
    write: bool
    read: bool
    def __init__(
        self,
        *,
        realm: str = "/data",
        exclusive: bool = False,
        passive: bool = True,
        active: bool = True,
        write: bool = True,
        read: bool = True,
    ) -> None: ...

class AccessRequestOk(Method):
    ticket: int
    def __init__(
        self,
        *,
        ticket: int = 1,
    ) -> None: ...

class ExchangeDeclare(Method):
    exchange: str
    type: str
    passive: bool
    durable: bool
    auto_delete: bool
    internal: bool
    nowait: bool
    arguments: dict[str, Any]
    def __init__(
        self,
        *,
        exchange: str = "",
        type: str = "direct",
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None: ...

class ExchangeDeclareOk(Method):
    def __init__(self) -> None: ...

class ExchangeDelete(Method):
    exchange: str
    if_unused: bool
    nowait: bool
    def __init__(
        self,
        *,
        exchange: str = "",
        if_unused: bool = False,
        nowait: bool = False,
    ) -> None: ...

class ExchangeDeleteOk(Method):
    def __init__(self) -> None: ...

class ExchangeBind(Method):
    destination: str
    source: str
    routing_key: str
    nowait: bool
    arguments: dict[str, Any]
    def __init__(
        self,
        *,
        destination: str = "",
        source: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None: ...

class ExchangeBindOk(Method):
    def __init__(self) -> None: ...

class ExchangeUnbind(Method):
    destination: str
    source: str
    routing_key: str
    nowait: bool
    arguments: dict[str, Any]
    def __init__(
        self,
        *,
        destination: str = "",
        source: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None: ...

class ExchangeUnbindOk(Method):
    def __init__(self) -> None: ...

class QueueDeclare(Method):
    queue: str
    passive: bool
    durable: bool
    exclusive: bool
    auto_delete: bool
    nowait: bool
    arguments: dict[str, Any]
    def __init__(
        self,
        *,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None: ...

class QueueDeclareOk(Method):
    queue: str
    message_count: int
    consumer_count: int
    def __init__(
        self,
        *,
        queue: str = "",
        message_count: int = 0,
        consumer_count: int = 0,
    ) -> None: ...

class QueueBind(Method):
    queue: str
    exchange: str
    routing_key: str
    nowait: bool
    arguments: dict[str, Any]
    def __init__(
        self,
        *,
        queue: str = "",
        exchange: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None: ...

class QueueBindOk(Method):
    def __init__(self) -> None: ...

class QueuePurge(Method):
    queue: str
    nowait: bool
    def __init__(
        self,
        *,
        queue: str = "",
        nowait: bool = False,
    ) -> None: ...

class QueuePurgeOk(Method):
    message_count: int
    def __init__(
        self,
        *,
        message_count: int = 0,
    ) -> None: ...

class QueueDelete(Method):
    queue: str
    if_unused: bool
    if_empty: bool
    nowait: bool
    def __init__(
        self,
        *,
        queue: str = "",
        if_unused: bool = False,
        if_empty: bool = False,
        nowait: bool = False,
    ) -> None: ...

class QueueDeleteOk(Method):
    message_count: int
    def __init__(
        self,
        *,
        message_count: int = 0,
    ) -> None: ...

class QueueUnbind(Method):
    queue: str
    exchange: str
    routing_key: str
    arguments: dict[str, Any]
    def __init__(
        self,
        *,
        queue: str = "",
        exchange: str = "",
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
    ) -> None: ...

class QueueUnbindOk(Method):
    def __init__(self) -> None: ...

class BasicQos(Method):
    prefetch_size: int
    prefetch_count: int
    global_qos: bool
    def __init__(
        self,
        *,
        prefetch_size: int = 0,
        prefetch_count: int = 0,
        global_qos: bool = False,
    ) -> None: ...

class BasicQosOk(Method):
    def __init__(self) -> None: ...

class BasicConsume(Method):
    queue: str
    consumer_tag: str
    no_local: bool
    no_ack: bool
    exclusive: bool
    nowait: bool
    arguments: dict[str, Any]
    def __init__(
        self,
        *,
        queue: str = "",
        consumer_tag: str = "",
        no_local: bool = False,
        no_ack: bool = False,
        exclusive: bool = False,
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None: ...

class BasicConsumeOk(Method):
    consumer_tag: str
    def __init__(
        self,
        *,
        consumer_tag: str = "",
    ) -> None: ...

class BasicCancel(Method):
    consumer_tag: str
    nowait: bool
    def __init__(
        self,
        *,
        consumer_tag: str = "",
        nowait: bool = False,
    ) -> None: ...

class BasicCancelOk(Method):
    consumer_tag: str
    def __init__(
        self,
        *,
        consumer_tag: str = "",
    ) -> None: ...

class BasicPublish(Method):
    exchange: str
    routing_key: str
    mandatory: bool
    immediate: bool
    def __init__(
        self,
        *,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
    ) -> None: ...

class BasicReturn(Method):
    reply_code: int
    reply_text: str
    exchange: str
    routing_key: str
    def __init__(
        self,
        *,
        reply_code: int = 0,
        reply_text: str = "",
        exchange: str = "",
        routing_key: str = "",
    ) -> None: ...

class BasicDeliver(Method):
    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    def __init__(
        self,
        *,
        consumer_tag: str = "",
        delivery_tag: int = 0,
        redelivered: bool = False,
        exchange: str = "",
        routing_key: str = "",
    ) -> None: ...

class BasicGet(Method):
    queue: str
    no_ack: bool
    def __init__(
        self,
        *,
        queue: str = "",
        no_ack: bool = False,
    ) -> None: ...

class BasicGetOk(Method):
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    message_count: int
    def __init__(
        self,
        *,
        delivery_tag: int = 0,
        redelivered: bool = False,
        exchange: str = "",
        routing_key: str = "",
        message_count: int = 0,
    ) -> None: ...

class BasicGetEmpty(Method):
    def __init__(self) -> None: ...

class BasicAck(Method):
    delivery_tag: int
    multiple: bool
    def __init__(
        self,
        *,
        delivery_tag: int = 0,
        multiple: bool = False,
    ) -> None: ...

class BasicReject(Method):
    delivery_tag: int
    requeue: bool
    def __init__(
        self,
        *,
        delivery_tag: int = 0,
        requeue: bool = True,
    ) -> None: ...

class BasicRecoverAsync(Method):
    requeue: bool
    def __init__(
        self,
        *,
        requeue: bool = False,
    ) -> None: ...

class BasicRecover(Method):
    requeue: bool
    def __init__(
        self,
        *,
        requeue: bool = False,
    ) -> None: ...

class BasicRecoverOk(Method):
    def __init__(self) -> None: ...

class BasicNack(Method):
    delivery_tag: int
    multiple: bool
    requeue: bool
    def __init__(
        self,
        *,
        delivery_tag: int = 0,
        multiple: bool = False,
        requeue: bool = True,
    ) -> None: ...

class ConfirmSelect(Method):
    nowait: bool
    def __init__(
        self,
        *,
        nowait: bool = False,
    ) -> None: ...

class ConfirmSelectOk(Method):
    def __init__(self) -> None: ...

class TxSelect(Method):
    def __init__(self) -> None: ...

class TxSelectOk(Method):
    def __init__(self) -> None: ...

class TxCommit(Method):
    def __init__(self) -> None: ...

class TxCommitOk(Method):
    def __init__(self) -> None: ...

class TxRollback(Method):
    def __init__(self) -> None: ...

class TxRollbackOk(Method):
    def __init__(self) -> None: ...

METHODS: Final[dict[int, type[Method]]]

def decode_method(payload: bytes) -> Method: ...
