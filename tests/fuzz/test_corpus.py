"""Every input that a fuzz target has in its committed corpus, tried in the ordinary suite: an old find stays fixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import fuzz_codec

CORPUS = Path(__file__).parent / "corpus"
SEEDS = sorted((CORPUS / "codec").iterdir())


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_codec_seed(seed: Path) -> None:
    fuzz_codec.check_input(seed.read_bytes())


def test_every_entry_point_has_seeds_it_accepts_and_seeds_it_refuses() -> None:
    outcomes = set()
    for seed in SEEDS:
        data = seed.read_bytes()
        entry = fuzz_codec.ENTRIES[data[0] % len(fuzz_codec.ENTRIES)]
        try:
            entry(data[1:])
        except fuzz_codec.AmqpError:
            outcomes.add((entry.__name__, "refuses"))
        else:
            outcomes.add((entry.__name__, "accepts"))
    wanted = {(entry.__name__, outcome) for entry in fuzz_codec.ENTRIES for outcome in ("accepts", "refuses")}
    # What both property readers refuse alike is a success of that entry.
    assert outcomes >= wanted - {("check_both_property_readers", "refuses")}
