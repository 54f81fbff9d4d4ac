from leveret.worker.state import WorkerState

class DrivenState(WorkerState):
    answers: list[tuple[int, int, int, int, bool]]
    def expect(self, origin: int, channel_ref: int, publish_no: int) -> None: ...
