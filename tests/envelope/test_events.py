"""Events wait until no key lock is held."""

from __future__ import annotations

import threading

import pytest

from django_asherah.envelope.events import EventQueue
from django_asherah.envelope.interfaces import CacheMissed, Event

A, B, C = CacheMissed("a"), CacheMissed("b"), CacheMissed("c")


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def queue(heard: list[Event]) -> EventQueue:
    return EventQueue(heard.append)


def test_an_event_outside_of_any_block_is_passed_on_at_once(queue: EventQueue, heard: list[Event]) -> None:
    queue(A)
    assert heard == [A]


def test_events_wait_for_the_end_of_the_outermost_block(queue: EventQueue, heard: list[Event]) -> None:
    with queue.held():
        queue(A)
        with queue.held():
            queue(B)
        queue(C)
        assert heard == []
    assert heard == [A, B, C]
    queue(A)
    assert heard == [A, B, C, A]


def test_they_are_passed_on_although_the_block_fails(queue: EventQueue, heard: list[Event]) -> None:
    with pytest.raises(RuntimeError, match="fails"), queue.held():
        queue(A)
        raise RuntimeError("the block fails")
    assert heard == [A]


def test_a_listener_may_cause_events_of_its_own() -> None:
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if event is A:
            with queue.held():
                queue(B)
                assert heard == [A]

    queue = EventQueue(listen)
    with queue.held():
        queue(A)
    assert heard == [A, B]


def test_a_block_holds_back_its_own_threads_events_only(queue: EventQueue, heard: list[Event]) -> None:
    with queue.held():
        queue(A)
        other = threading.Thread(target=queue, args=[B])
        other.start()
        other.join()
        assert heard == [B]
    assert heard == [B, A]
