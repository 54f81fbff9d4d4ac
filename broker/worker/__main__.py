"""`python -m leveret.worker`: one worker process, started by the supervisor."""

from leveret.supervisor.child import run_child
from leveret.worker.worker import main

run_child("worker", main)
