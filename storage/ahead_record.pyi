"""What Python calls of `ahead_record.pyx`."""

from collections.abc import Sequence
from typing import Final

from leveret.storage.commit_log import Operation

BLOCK_BYTES: Final[int]
ID_BYTES: Final[int]

class DamagedRecord(ValueError): ...

def encode_record(file_id: bytes, sequence: int, operations: Sequence[Operation]) -> bytes: ...
def read_records(content: bytes, file_id: bytes, after: int) -> list[list[Operation]]: ...
