"""Which exchange types there are: the one list that declares are checked against."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from leveret.router.exchanges.direct import DirectExchange
from leveret.router.exchanges.exchange import Exchange
from leveret.router.exchanges.fanout import FanoutExchange
from leveret.router.exchanges.headers import HeadersExchange
from leveret.router.exchanges.topic import TopicExchange

EXCHANGE_TYPES: Final[Mapping[str, type[Exchange]]] = MappingProxyType(
    {"direct": DirectExchange, "fanout": FanoutExchange, "headers": HeadersExchange, "topic": TopicExchange}
)
