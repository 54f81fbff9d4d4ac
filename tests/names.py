"""Names for what a test declares: `unique` gives one that nothing else has, so that tests can share a broker in any order."""

from __future__ import annotations

import uuid


def unique(kind: str) -> str:
    """`kind`, a dash and random digits."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"
