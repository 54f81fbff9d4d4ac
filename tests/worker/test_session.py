"""What a session decides by itself: what tune-ok may ask for, and how addresses are shown."""

from __future__ import annotations

import pytest
from leveret.codec.errors import NotAllowed
from leveret.worker.session import check_negotiated, shown_host


@pytest.mark.parametrize("value", [4096, 4097, 131071, 131072])
def test_a_value_between_the_limits_is_taken(value: int) -> None:
    check_negotiated("frame_max", value, 4096, 131072)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "NOT_ALLOWED - negotiated frame_max = 1 is lower than the minimum allowed value (4096)"),
        (4095, "NOT_ALLOWED - negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        (131073, "NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
        (0, "NOT_ALLOWED - negotiated frame_max = 0 is higher than the maximum allowed value (131072)"),
    ],
)
def test_a_value_beyond_them_is_530(value: int, text: str) -> None:
    with pytest.raises(NotAllowed) as refused:
        check_negotiated("frame_max", value, 4096, 131072)
    assert (refused.value.reply_code, refused.value.reply_text) == (530, text)


@pytest.mark.parametrize(
    ("address", "shown"), [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("fe80::1", "fe80::1")]
)
def test_an_ipv4_client_is_shown_by_its_own_address(address: str, shown: str) -> None:
    assert shown_host(address) == shown
