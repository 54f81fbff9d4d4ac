"""`python -m leveret.router`: the router process, started by the supervisor."""

from leveret.router.router import main
from leveret.supervisor.child import run_child

run_child("router", main)
