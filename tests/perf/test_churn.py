"""Mixed sizes at constant depth, shorter than the bench: files stay within a multiple of what is live, and every message is right."""

from __future__ import annotations

import os

from bench.churn import RATIO_MAX, Churn, verify
from bench.leveret_node import LeveretNode

DEPTH_BYTES = 64_000_000
TURNS = float(os.environ.get("LEVERET_CHURN_TURNS", "8"))  # how many times the depth goes through
SEED = 20_261_124


def test_files_stay_in_proportion_and_messages_in_order() -> None:
    with LeveretNode(2) as node:
        with Churn(node, DEPTH_BYTES, SEED) as churn:
            while churn.published_bytes < TURNS * DEPTH_BYTES:
                churn.step()
            churn.look()
            assert churn.sizes.file_bytes > churn.sizes.live_bytes / 2, "the messages are in these files"
            assert churn.sizes.ratio_max <= RATIO_MAX
            churn.drain()
        node.halt()
        assert verify(node) == ""
