"""What is laid over the tables: beside a plain dict, and nothing kept that came and went."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from leveret.storage.commit_log import Operation, Table
from leveret.storage.overlay import Overlay, Unknown

KEYS = st.integers(0, 12).map(lambda number: bytes([number]))
OPERATIONS = st.lists(st.tuples(st.sampled_from(sorted(Table)), KEYS, st.one_of(st.none(), st.binary(max_size=5))), max_size=30)


@settings(deadline=None)
@given(below=OPERATIONS, batches=st.lists(OPERATIONS, max_size=4), first=KEYS)
def test_it_reads_as_if_the_batches_were_in_the_tables(below: list[Operation], batches: list[list[Operation]], first: bytes) -> None:
    tables: dict[int, dict[bytes, bytes]] = {table: {} for table in Table}
    for table, key, value in below:
        if value is not None:
            tables[table][key] = value
    # Of two tables it is known which keys they have at most.
    highest = {int(table): max(tables[table], default=b"") for table in (Table.SEGMENTS, Table.INDEX)}
    expected = {table: dict(content) for table, content in tables.items()}
    overlay = Overlay()
    for batch in batches:
        before = overlay.operations()
        together = overlay.with_added(batch, highest)
        assert overlay.operations() == before
        overlay.add(batch, highest)
        assert (together.operations(), together.size_bytes) == (overlay.operations(), overlay.size_bytes)
        for table, key, value in batch:
            if value is None:
                expected[table].pop(key, None)
            else:
                expected[table][key] = value
    for table in Table:
        beneath = iter(sorted(item for item in tables[table].items() if item[0] >= first))
        assert list(overlay.over(table, first, beneath)) == sorted(item for item in expected[table].items() if item[0] >= first)
        for key in (bytes([number]) for number in range(13)):
            laid = overlay.get(table, key)
            assert (tables[table].get(key) if laid is Unknown.UNKNOWN else laid) == expected[table].get(key)
    operations = overlay.operations()
    assert [(table, key) for table, key, _ in operations] == sorted({(table, key) for table, key, _ in operations})
    assert overlay.size_bytes == sum(len(value) for _, _, value in operations if value is not None)
    assert bool(overlay) == bool(operations)
    for table, key, value in operations:
        if value is None:
            tables[table].pop(key, None)
        else:
            tables[table][key] = value
    assert tables == expected


def test_what_came_and_went_leaves_nothing_behind() -> None:
    overlay = Overlay()
    highest = {int(Table.SEGMENTS): b"\0\5"}
    for number in range(6, 200):
        overlay.add([(Table.SEGMENTS, bytes([0, number]), bytes(100))], highest)
        overlay.add([(Table.SEGMENTS, bytes([0, number]), None)], highest)
    assert not overlay
    assert overlay.size_bytes == 0
    overlay.add([(Table.SEGMENTS, b"\0\5", None), (Table.QUEUES, b"\0\7", None)], highest)
    assert overlay.operations() == [(Table.SEGMENTS, b"\0\5", None), (Table.QUEUES, b"\0\7", None)], "the table may have these"


def test_a_scan_is_of_the_moment_when_it_began() -> None:
    overlay = Overlay()
    overlay.add([(Table.QUEUES, b"b", b"1"), (Table.QUEUES, b"d", b"1")], {})
    scan = overlay.over(Table.QUEUES, b"", iter([(b"a", b"0"), (b"c", b"0")]))
    assert next(scan) == (b"a", b"0")
    overlay.add([(Table.QUEUES, b"c", None), (Table.QUEUES, b"e", b"2"), (Table.QUEUES, b"b", None)], {})
    assert list(scan) == [(b"b", b"1"), (b"c", b"0"), (b"d", b"1")]
