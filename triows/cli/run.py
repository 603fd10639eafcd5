"""`triows run`: a command whose output is watched while it runs."""

from __future__ import annotations

import shlex
import signal
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import trio

import triows
from triows.cli import terminal
from triows.cli.child import Child, start_in_terminal, start_piped
from triows.cli.lines import Publish, Waiting
from triows.cli.output import note, readable
from triows.cli.pump import PAUSE, Pump, pass_input_on, publish_waiting
from triows.cli.steer import ACTIONS, Steering

NOT_FOUND: Final = 127  # exit status for a command that cannot be started, as in a shell
SAY_AFTER: Final = 1.0  # seconds that publishing the rest may take without a word
SAY_EVERY: Final = 10.0  # seconds from then on


def publish_by(client: triows.Client, channel: str) -> Publish:
    """Publish through a client to a server elsewhere."""

    async def publish(messages: list[triows.Message]) -> None:
        await client.publish_many(channel, messages)

    return publish


async def run_command(
    command: list[str], publish: Publish, *, pty: bool = False, steering: Steering | None = None
) -> int:
    """Run `command`, publish what it prints line by line, and return its exit status.

    Its output also goes where it would have gone. Standard input and Ctrl-C are the command's;
    other signals that ask to end are passed on to it.

    Args:
        command: the program and its arguments.
        publish: where to.
        pty: give it a terminal, of the size of ours.
        steering: what obeys those who may steer it, or None.

    Raises:
        TriowsError: the server refuses to have it published; then it is not started.
    """
    await publish([_started(command, pty=pty, steering=steering)])
    with trio.open_signal_receiver(*_asking_to_end()) as signals:
        try:
            if pty:
                child = await start_in_terminal(command)
            else:
                child = await start_piped(command, feed=steering is not None)
        except OSError as error:
            note(f"cannot run {command[0]}: {error.strerror}", "red")
            await publish([triows.end(exit_code=NOT_FOUND, reason=f"cannot run: {error.strerror}")])
            return NOT_FOUND
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pass_signals_on, signals, child, nursery.cancel_scope)
                await _attend(child, publish, steering)
                await _publish_end(child.process.returncode or 0, publish)
                nursery.cancel_scope.cancel(reason="the command has ended, and that is published")
        finally:
            await child.aclose()
    return _exit_status(child.process.returncode or 0)


def _started(command: list[str], *, pty: bool, steering: Steering | None) -> triows.Message:
    data: dict[str, Any] = {"state": "started", "command": readable(shlex.join(command))}
    if pty:
        data["terminal"] = terminal.our_size()._asdict()
    if steering is not None:
        data["commands"] = ACTIONS
    return triows.status(data)


async def _attend(child: Child, publish: Publish, steering: Steering | None) -> None:
    """Publish what the command prints, and serve it until it has ended."""
    waiting = Waiting()
    async with trio.open_nursery() as publishing:
        publishing.start_soon(_publish_all, waiting, publish, publishing.cancel_scope)
        async with trio.open_nursery() as pumps:
            for output in child.outputs:
                pumps.start_soon(Pump(output, waiting).run)
            async with trio.open_nursery() as serving:
                with terminal.raw_keyboard(wanted=child.size is not None):
                    serving.start_soon(_pass_size_on, child, waiting)
                    if steering is not None:
                        steering.attach(child, publish)
                        serving.start_soon(steering.kill_what_stays)
                    if child.feed is not None:
                        serving.start_soon(child.feed.run)
                        open_ = steering is not None
                        serving.start_soon(partial(pass_input_on, child, stays_open=open_))
                    await child.process.wait()
                serving.cancel_scope.cancel(reason="the command has ended")
            child.command_has_ended()
            publishing.start_soon(_say_what_is_left, waiting)
        waiting.close()


async def _publish_all(waiting: Waiting, publish: Publish, scope: trio.CancelScope) -> None:
    await publish_waiting(waiting, publish)
    scope.cancel(reason="everything is published")


async def _say_what_is_left(waiting: Waiting) -> None:
    """Say what we still wait for when the command has ended, at once and now and then."""
    pause = SAY_AFTER
    while True:
        await trio.sleep(pause)
        note(f"the command has ended; {len(waiting)} messages still wait to be published")
        pause = SAY_EVERY


def _exit_status(returncode: int) -> int:
    """Return what a shell would: 128 and the signal's number for a command that was killed."""
    return returncode if returncode >= 0 else 128 - returncode


async def _publish_end(returncode: int, publish: Publish) -> None:
    reason = None
    if returncode < 0:
        known = {number.value: number.name for number in signal.Signals}
        reason = f"killed by {known.get(-returncode, f'signal {-returncode}')}"
    try:
        await publish([triows.end(exit_code=_exit_status(returncode), reason=reason)])
    except triows.TriowsError as error:
        note(f"the end could not be published: {error}", "yellow")


def _asking_to_end() -> list[signal.Signals]:
    """Return the signals that are passed on; under nohup and its like, SIGHUP is not."""
    others = (signal.SIGHUP, signal.SIGQUIT)
    heard = [number for number in others if signal.getsignal(number) != signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *heard]


async def _pass_signals_on(
    signals: AsyncIterator[int], child: Child, publishing: trio.CancelScope
) -> None:
    """Pass signals on to the command, but for those that the terminal sends it as well; once it
    has ended, a signal ends the wait for a server that does not answer.
    """
    keys = (signal.SIGINT, signal.SIGQUIT)
    async for number in signals:
        if child.process.returncode is not None:
            note("stopped before everything was published", "yellow")
            publishing.cancel(reason="a signal, after the command has ended")
        elif number in keys and child.shares_our_group and terminal.in_front():
            continue
        else:
            _pass_on(number, child)


def _pass_on(number: int, child: Child) -> None:
    try:
        if number == signal.SIGINT:
            child.interrupt()
        else:
            child.send(number)
    except PermissionError:
        note("a signal could not be passed on: the command runs as another user", "yellow")


async def _pass_size_on(child: Child, waiting: Waiting) -> None:
    """Give the command's terminal each new size of ours, and tell those who watch."""
    if child.size is None:
        return
    with trio.open_signal_receiver(signal.SIGWINCH) as signals:
        async for _ in signals:
            size = terminal.our_size()
            if size != child.size:
                child.resize(size)
                await waiting.put(triows.event({"event": "resized", **size._asdict()}))
                await trio.sleep(PAUSE)  # a window that is dragged changes a hundred times
