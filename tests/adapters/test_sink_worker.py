import asyncio
import threading

import pytest

from sidelight.adapters._sink_worker import SinkWorker


def test_calls_run_in_order_in_one_thread_that_holds_no_process() -> None:
    async def use() -> list[threading.Thread]:
        worker = SinkWorker("test")
        return list(await asyncio.gather(*[worker.run(threading.current_thread) for _ in range(3)]))

    threads = asyncio.run(use())

    assert len(set(threads)) == 1
    assert threads[0].daemon
    assert threads[0] is not threading.current_thread()


def test_an_error_is_raised_where_it_is_awaited_and_the_thread_goes_on() -> None:
    async def use() -> int:
        worker = SinkWorker("test")
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        return await worker.run(lambda: 7)

    assert asyncio.run(use()) == 7


def test_a_caller_that_leaves_or_whose_loop_ends_stops_nobody() -> None:
    free, done = threading.Event(), threading.Event()
    worker = SinkWorker("test")

    async def leave() -> None:
        waiting = asyncio.create_task(worker.run(lambda: free.wait(100)))
        staying = asyncio.create_task(worker.run(done.set))
        await asyncio.sleep(0)
        waiting.cancel()
        staying.cancel()

    asyncio.run(leave())
    free.set()

    assert done.wait(100)
    assert asyncio.run(worker.run(lambda: 7)) == 7


def test_a_stopped_worker_ends_its_thread_and_begins_another_when_it_is_asked_again() -> None:
    async def use() -> tuple[threading.Thread, threading.Thread]:
        worker = SinkWorker("test")
        worker.stop()
        first = await worker.run(threading.current_thread)
        worker.stop()
        await asyncio.to_thread(first.join, 100)
        return first, await worker.run(threading.current_thread)

    first, second = asyncio.run(use())

    assert not first.is_alive()
    assert second.is_alive()
