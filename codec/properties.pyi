from typing import Any, Final

PROPERTIES: Final[tuple[tuple[str, str], ...]]
NO_PROPERTIES: Final[bytes]

class Properties:
    content_type: str | None
    content_encoding: str | None
    headers: dict[str, Any] | None
    delivery_mode: int | None
    priority: int | None
    correlation_id: str | None
    reply_to: str | None
    expiration: str | None
    message_id: str | None
    timestamp: int | None
    type: str | None
    user_id: str | None
    app_id: str | None
    cluster_id: str | None
    def __init__(
        self,
        *,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        delivery_mode: int | None = None,
        priority: int | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expiration: str | None = None,
        message_id: str | None = None,
        timestamp: int | None = None,
        type: str | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
        cluster_id: str | None = None,
    ) -> None: ...
    def encode(self) -> bytes: ...
    def __eq__(self, other: object) -> bool: ...

class ContentHeader:
    def __init__(self, class_id: int, body_size: int, properties: bytes = ..., *, weight: int = 0) -> None: ...
    @property
    def class_id(self) -> int: ...
    @property
    def weight(self) -> int: ...
    @property
    def body_size(self) -> int: ...
    @property
    def properties(self) -> bytes: ...
    def encode(self) -> bytes: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

def decode_properties(data: bytes, *, typed: bool = False) -> Properties: ...
def check_properties(data: bytes) -> dict[str, bytes | int]: ...
def decode_content_header(payload: bytes) -> ContentHeader: ...
