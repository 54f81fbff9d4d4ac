"""The exchange, queues and bindings of a load: declared before it, counted and deleted after it, over a session."""

from __future__ import annotations

import contextlib

from leveret.perf.plan import Plan
from leveret.perf.session import BrokerRefused, BrokerUnreachable, Session


def declare(session: Session, plan: Plan) -> None:
    """Declare everything that `plan` (with its names filled in) publishes to and consumes from. Raises BrokerRefused."""
    if plan.exchange_kind != "default":
        session.declare_exchange(plan.exchange, plan.exchange_kind, durable=plan.durable)
    for queue, binding_key in zip(plan.queue_names(), plan.binding_keys(), strict=True):
        session.declare_queue(queue, durable=plan.durable)
        if plan.exchange_kind != "default":
            session.bind(queue, plan.exchange, binding_key)


def left_in_queues(plan: Plan) -> int | None:
    """Messages that are ready in the queues of `plan`, by passive declares; None when the broker does not tell."""
    try:
        session = Session(plan.target, "leveret perf count")
    except (BrokerRefused, BrokerUnreachable):
        return None
    try:
        return sum(session.declare_queue(queue, passive=True).message_count for queue in plan.queue_names())
    except (BrokerRefused, BrokerUnreachable):
        return None
    finally:
        session.close()


def delete(plan: Plan, *, queues: bool, exchange: bool) -> None:
    """Delete the queues and the exchange of `plan`, as told. A broker that is gone has nothing to delete."""
    with contextlib.suppress(BrokerRefused, BrokerUnreachable):
        session = Session(plan.target, "leveret perf clean-up")
        try:
            for queue in plan.queue_names() if queues else ():
                session.delete_queue(queue)
            if exchange and plan.exchange_kind != "default":
                session.delete_exchange(plan.exchange)
        finally:
            session.close()
