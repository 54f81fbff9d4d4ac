"""The command `leveret perf`: options in, a live line while it runs, a table at the end.

`perf` is registered by `leveret.ctl.main`; `python -m leveret.perf.main` is the same. Exit codes: 0 the load ran and every message is
accounted for; 1 it could not run, or the broker lost, repeated, reordered or refused something; 2 the options make no load.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from leveret.perf.fleet import Fleet, LoadFailed, LoadStopped, Progress
from leveret.perf.plan import DECLARERS, EXCHANGE_KINDS, Plan, PlanError
from leveret.perf.session import BrokerRefused, BrokerUnreachable
from rich.console import Console
from rich.live import Live
from rich.text import Text

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def perf(
    uri: Annotated[str, typer.Option(help="amqp://user:password@host:port/vhost of any AMQP 0-9-1 broker.")] = Plan.uri,
    publishers: Annotated[int, typer.Option("--publishers", "-x", help="Processes that publish.")] = Plan.publishers,
    consumers: Annotated[int, typer.Option("--consumers", "-y", help="Processes that consume; 0 only fills the queues.")] = Plan.consumers,
    queues: Annotated[int, typer.Option(help="Queues; consumers share them out.")] = Plan.queues,
    size: Annotated[int, typer.Option("--size", "-s", help="Bytes of a body. From 16 on, latency and order are checked.")] = Plan.size,
    rate: Annotated[float, typer.Option(help="Messages/s of each publisher; 0: as fast as it goes.")] = Plan.rate,
    persistent: Annotated[bool, typer.Option("--persistent", help="Publish with delivery mode 2.")] = Plan.persistent,
    durable: Annotated[bool, typer.Option("--durable", help="Declare exchange and queues as durable.")] = Plan.durable,
    confirms: Annotated[
        int, typer.Option(help="Publishes of each publisher that may await their confirm; 0: none asked for.")
    ] = Plan.confirms,
    mandatory: Annotated[bool, typer.Option("--mandatory", help="Publish as mandatory, and count what is returned.")] = Plan.mandatory,
    ack: Annotated[str, typer.Option(help="auto (no acks), each, or multiple:N (one ack for N messages).")] = Plan.ack,
    prefetch: Annotated[int, typer.Option(help="Unacked messages of each consumer; 0: no limit.")] = Plan.prefetch,
    exchange_kind: Annotated[str, typer.Option("--exchange-kind", "-e", help=f"{', '.join(EXCHANGE_KINDS)}.")] = Plan.exchange_kind,
    exchange: Annotated[str, typer.Option(help="Name of the exchange; without it one is made for the load and deleted afterwards.")] = "",
    queue: Annotated[str, typer.Option(help="Name of the queue (with --queues: its beginning); without it as for --exchange.")] = "",
    routing_key: Annotated[str, typer.Option(help="Pattern; {queue} and {n} become numbers.")] = "",
    binding_key: Annotated[str, typer.Option(help="Pattern; {queue} becomes a number.")] = "",
    keys: Annotated[int, typer.Option(help="{n} of the routing key runs through so many values.")] = Plan.keys,
    seconds: Annotated[float, typer.Option("--seconds", "-t", help="How long to measure.")] = Plan.seconds,
    messages: Annotated[int, typer.Option("--messages", "-n", help="Publish so many messages in all instead, and measure them all.")] = 0,
    warmup_s: Annotated[float, typer.Option("--warmup", help="Seconds of load before the measuring begins.")] = Plan.warmup_s,
    declare_by: Annotated[
        str,
        typer.Option(help=f"Whose connection declares the queues: {', '.join(DECLARERS)} (an idle one). Leveret keeps them on its worker."),
    ] = Plan.declare_by,
    idle_between: Annotated[
        int,
        typer.Option(help="Connections to open after the publishers' and before the consumers': steers a broker that spreads connections."),
    ] = Plan.idle_between,
    keep: Annotated[bool, typer.Option("--keep", help="Leave exchange and queues behind.")] = False,
    broker_pid: Annotated[int, typer.Option(help="Root of the broker's process tree on this machine: tells its CPU time per message.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here; - is standard output.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No live line.")] = False,
) -> None:
    """Load an AMQP 0-9-1 broker, and tell rates, latencies and whether every message is accounted for."""
    console = Console(stderr=json_file is not None and str(json_file) == "-", highlight=False)
    try:
        plan = Plan(
            uri=uri,
            publishers=publishers,
            consumers=consumers,
            queues=queues,
            size=size,
            rate=rate,
            persistent=persistent,
            confirms=confirms,
            mandatory=mandatory,
            ack=ack,
            prefetch=prefetch,
            exchange_kind=exchange_kind,
            exchange=exchange,
            queue=queue,
            routing_key=routing_key,
            binding_key=binding_key,
            keys=keys,
            durable=durable,
            seconds=seconds,
            messages=messages,
            warmup_s=warmup_s,
            declare_by=declare_by,
            idle_between=idle_between,
            keep=keep,
        )
    except PlanError as error:
        raise typer.BadParameter(str(error)) from None
    line = LiveLine(console, plan, shown=not quiet and console.is_terminal)
    try:
        with line, Fleet(plan, broker_pid=broker_pid, on_progress=line.show) as fleet:
            report = fleet.run()
    except (LoadFailed, BrokerRefused, BrokerUnreachable) as error:
        console.print(Text(str(error), style="bold red"))
        raise typer.Exit(1) from None
    except (LoadStopped, KeyboardInterrupt):
        console.print("stopped before anything was measured")
        raise typer.Exit(1) from None
    console.print(report.table())
    if json_file is not None:
        text = json.dumps(report.to_json(), indent=2) + "\n"
        if str(json_file) == "-":
            typer.echo(text, nl=False)
        else:
            try:
                json_file.write_text(text)
            except OSError as error:
                console.print(Text(f"{json_file} cannot be written: {error.strerror}", style="bold red"))
                raise typer.Exit(1) from None
    if report.faults:
        raise typer.Exit(1)


class LiveLine:
    """The line that tells how the load goes while it runs. Rates are those of the last second or so."""

    def __init__(self, console: Console, plan: Plan, *, shown: bool) -> None:
        self._plan = plan
        self._live = Live(console=console, refresh_per_second=5, transient=True) if shown else None
        self._began_s = time.monotonic()
        self._marks: list[tuple[float, int, int]] = []  # time, published, received

    def __enter__(self) -> LiveLine:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        if self._live is None:
            return
        now_s = time.monotonic()
        if not self._marks or now_s - self._marks[-1][0] > 0.2:
            self._marks = [*self._marks[-5:], (now_s, progress.published, progress.received)]
        then_s, published, received = self._marks[0]
        passed_s = max(now_s - then_s, 1e-9)
        parts = [f"{progress.phase:<10} {now_s - self._began_s:5.1f} s"]
        if self._plan.publishers:
            parts.append(f"published {progress.published:>13,}  {(progress.published - published) / passed_s:>11,.0f}/s")
        if self._plan.consumers:
            parts.append(f"received {progress.received:>13,}  {(progress.received - received) / passed_s:>11,.0f}/s")
        if progress.blocked:
            parts.append(f"blocked by the broker: {progress.blocked}")
        self._live.update(Text("   ".join(parts)))


if __name__ == "__main__":
    app()
