"""Blocking calls are shared by those who ask together, and never older than the question."""

import threading

import anyio
import anyio.lowlevel
import pytest

from jobs.util.keyed import SingleFlight

pytestmark = pytest.mark.anyio


class Look:
    """A blocking look that the test holds; says how many there were."""

    def __init__(self) -> None:
        self.looks = 0
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self) -> int:
        self.looks += 1
        number = self.looks
        self.begun.release()
        assert self.go.acquire(timeout=20)
        return number

    async def wait_until_begun(self) -> None:
        with anyio.fail_after(60):
            while not self.begun.acquire(blocking=False):  # noqa: ASYNC110 - a thread releases it
                await anyio.sleep(0.001)


async def test_those_who_ask_while_a_call_runs_share_the_next_one():
    flight, look, answers = SingleFlight[int](), Look(), list[int]()

    async def ask() -> None:
        answers.append(await flight.call("a", look))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await look.wait_until_begun()
            for _ in range(5):
                group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            look.go.release()
            look.go.release()
    assert (answers, look.looks) == ([1, 2, 2, 2, 2, 2], 2)


async def test_all_who_share_a_call_have_its_answer_in_the_same_turn_of_the_loop():
    flight, look, turns, answered = SingleFlight[int](), Look(), 0, list[int]()

    async def ask() -> None:
        await flight.call("a", look)
        answered.append(turns)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask)
            await look.wait_until_begun()
            look.go.release()
            while len(answered) < 50:
                await anyio.lowlevel.checkpoint()
                turns += 1
    assert look.looks == 1
    assert max(answered) - min(answered) <= 1


async def test_another_question_does_not_wait():
    flight, slow = SingleFlight[int](), Look()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(flight.call, "slow", slow)
            await slow.wait_until_begun()
            assert await flight.call("quick", lambda: 7) == 7
            slow.go.release()


async def test_an_error_is_for_the_one_whose_call_it_was():
    flight, look, said = SingleFlight[int](), Look(), list[object]()

    def fails_once() -> int:
        if look() == 1:
            raise FileNotFoundError
        return 2

    async def ask() -> None:
        try:
            said.append(await flight.call("a", fails_once))
        except FileNotFoundError:
            said.append("failed")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await look.wait_until_begun()
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            look.go.release()
            look.go.release()
    assert said == ["failed", 2]


async def test_a_question_that_comes_after_an_answer_is_asked_anew():
    flight, answers = SingleFlight[int](), iter([1, 2])
    assert [await flight.call("a", lambda: next(answers)) for _ in range(2)] == [1, 2]
