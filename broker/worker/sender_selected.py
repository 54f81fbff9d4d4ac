"""Sender-selected distribution: further routing keys that a publisher puts into its message's headers CC and BCC, as in RabbitMQ.

Each key is routed through the same exchange as the message's own; every queue gets one copy. CC stays in the message, BCC is taken out
before anybody sees it. A channel calls this only for messages that have such a header.
"""

from __future__ import annotations

from leveret.codec.errors import PreconditionFailed
from leveret.codec.properties import decode_properties
from leveret.codec.tables import Typed, type_name

KEYS_MAX = 65534  # with the message's own key, what packets count in 16 bits


def further_keys(properties: bytes) -> tuple[bytes, int, bytes]:
    """The keys as a packet carries them (a size of one byte and the key, each), their number, and the properties without BCC.

    Raises `PreconditionFailed` (406) when CC or BCC is not an array, or a key is longer than 255 bytes.
    """
    decoded = decode_properties(properties, typed=True)
    headers = decoded.headers or {}
    keys: list[bytes] = []
    for name in ("CC", "BCC"):
        field = headers.get(name)
        if field is None:
            continue
        if field.tag != "A":
            raise PreconditionFailed(f'invalid message: {{unacceptable_type_in_header,"{name}",{type_name(field.tag)}}}')
        # As in RabbitMQ, elements that are not strings are passed over.
        keys += [_bytes(element) for element in field.value if element.tag == "S"]
    if len(keys) > KEYS_MAX or any(len(key) > 255 for key in keys):
        raise PreconditionFailed("invalid message: a routing key in CC or BCC is longer than 255 bytes, or there are too many")
    packed = b"".join(bytes([len(key)]) + key for key in keys)
    if "BCC" not in headers:
        return packed, len(keys), properties
    del headers["BCC"]
    decoded.headers = headers
    return packed, len(keys), decoded.encode()


def _bytes(element: Typed) -> bytes:
    return element.value if isinstance(element.value, bytes) else element.value.encode("utf-8", "surrogateescape")
