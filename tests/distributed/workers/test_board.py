"""The board alone, as plain asyncio; test_slots.py runs it as a Ray actor under real workers."""

import asyncio
from pathlib import Path

from trustsweep.distributed.workers import board as board_module
from trustsweep.distributed.workers.board import (
    AssignedTrial,
    Begun,
    Board,
    Epoch,
    Evaluate,
    Failure,
    Finish,
    RankError,
    Standing,
    Start,
)
from trustsweep.distributed.workers.fidelity import FULL

TRIAL = AssignedTrial("a", {"epochs": 3}, Path("nowhere"))


async def rank(board: Board, token: str, index: int, answers: list, after: int = 0) -> list:
    """A rank that gives these answers to the commands it gets, problems as errors."""
    taken = []
    await board.enter(token)
    for answer in answers:
        after, command = await board.next(after)
        taken.append(command)
        error = answer if isinstance(answer, RankError) else None
        await board.acknowledge(token, index, after, None if error else answer, error)
    return taken


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_every_rank_gets_every_command_in_order_and_rank_zero_answers():
    async def scenario():
        board = Board(world=2)
        ranks = [
            asyncio.create_task(rank(board, "t", i, [Begun(), {"rank": i}, {"rank": i}]))
            for i in range(2)
        ]
        answers = [await board.post(c) for c in (Start(TRIAL), Epoch(), Evaluate(FULL))]
        return answers, await asyncio.gather(*ranks)

    answers, taken = run(scenario())
    assert answers == [Begun(), {"rank": 0}, {"rank": 0}]
    assert taken[0] == taken[1] == [Start(TRIAL), Epoch(), Evaluate(FULL)]


def test_a_new_group_learns_the_standing_and_gets_only_the_pending_command():
    cost = {"cost.images": 7.0}
    spent = {"clean.dice": 0.5, **cost}

    async def scenario():
        board = Board(world=1)
        assert await board.enter("old") is None
        old = asyncio.create_task(rank(board, "old", 0, [Begun(epochs=2), {}, spent]))
        await board.post(Start(TRIAL))
        await board.post(Epoch())
        await board.post(Evaluate(FULL))
        await old
        pending = asyncio.create_task(board.post(Evaluate(FULL)))
        await asyncio.sleep(0)  # the old group takes this one and dies
        standing = await board.enter("new")
        taken = await rank(board, "new", 0, [{"late": 1.0}])
        return standing, taken, await pending

    standing, taken, answer = run(scenario())
    assert standing == Standing(TRIAL, epochs=3, cost=cost)
    assert taken == [Evaluate(FULL)]
    assert answer == {"late": 1.0}


def test_half_a_dead_groups_answers_do_not_count():
    async def scenario():
        board = Board(world=2)
        for _ in range(2):
            await board.enter("old")
        pending = asyncio.create_task(board.post(Start(TRIAL)))
        await rank(board, "old", 0, [Begun(1)])
        for _ in range(2):
            await board.enter("new")
        await board.acknowledge("old", 1, 1, Begun(1), None)
        assert not pending.done()
        await asyncio.gather(*(rank(board, "new", i, [Begun(2)]) for i in range(2)))
        return await pending

    assert run(scenario()) == Begun(2)


def test_a_group_that_keeps_dying_fails_the_trial_and_can_start_another():
    async def scenario():
        board = Board(world=1)
        pending = asyncio.create_task(board.post(Start(TRIAL)))
        for token in "abcd":
            await asyncio.sleep(0)
            await board.enter(token)
        failure = await pending
        other = asyncio.create_task(rank(board, "d", 0, [Begun()]))
        return failure, await board.post(Start(TRIAL)), await other

    failure, answer, _ = run(scenario())
    assert isinstance(failure, Failure)
    assert failure.group_usable
    assert "died 3 times" in failure.reason
    assert answer == Begun()


def test_an_error_of_all_ranks_leaves_the_group_usable_a_lone_one_does_not(monkeypatch):
    monkeypatch.setattr(board_module, "ERROR_GRACE", 0.1)

    async def scenario(*answers):
        board = Board(world=2)
        ranks = [
            asyncio.create_task(rank(board, "t", i, [answer]))
            for i, answer in enumerate(answers)
            if answer is not None
        ]
        failure = await board.post(Epoch())
        await asyncio.gather(*ranks)
        return failure

    assert run(scenario(RankError("x"), RankError("x"))) == Failure("x", group_usable=True)
    assert run(scenario(None, RankError("y"))) == Failure("y", group_usable=False)
    away = RankError("no storage", outside=True)
    assert run(scenario(away, away)) == Failure("no storage", group_usable=True, outside=True)


def test_a_finished_trial_is_not_taken_up_again():
    async def scenario():
        board = Board(world=1)
        await board.enter("t")
        task = asyncio.create_task(rank(board, "t", 0, [Begun(), {}, None]))
        for command in (Start(TRIAL), Epoch(), Finish({})):
            await board.post(command)
        await task
        return await board.enter("new")

    assert run(scenario()) is None


def test_why_no_group_could_get_ready_is_told():
    async def scenario():
        board = Board(world=1)
        await board.enter("first")
        posted = asyncio.create_task(board.post(Epoch()))
        for group in range(board_module.MAX_RESTARTS + 1):
            await asyncio.sleep(0)
            await board.leave("ValueError: no such device")
            await board.enter(f"group {group}")
        return await posted

    assert run(scenario()).reason == "its workers died 3 times (ValueError: no such device)"
