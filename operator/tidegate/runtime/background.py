"""Questions that are asked beside the passes, so that no pass waits for an answer.

What explains a pod is slow to come just where something is wrong: a Triton that hangs, an API
server under load. A pass says what it wants to know, takes what is known and goes on; an answer
that differs from what was known wakes the ModelDeployment.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

import structlog

from tidegate.runtime.cache import Key

log: Final = structlog.get_logger(__name__)

AT_ONCE: Final = 4
"""Questions of one kind that are asked at the same time, of all ModelDeployments together: of the
connections to the API server (`kube.CONNECTIONS`), most are left to those who write."""
AGAIN_LEAST_S: Final = 0.1
REMEMBERED: Final = 1024
"""Questions that nobody wants answered any more, and that are not asked at once if wanted again."""

Answer = TypeVar("Answer")


class UnansweredError(Exception):
    """There was no answer; what was known before stays."""


class Taken(NamedTuple, Generic[Answer]):
    """What a pass takes.

    Attributes:
        answers: by question, the last known; the unknown one where none came yet.
        again_after_s: look again at the latest in so many seconds; None: nothing is asked.
    """

    answers: dict[Any, Answer]
    again_after_s: float | None


@dataclass
class _Question(Generic[Answer]):
    """One question.

    Attributes:
        answer: the last.
        asked_at: when it was last asked to an end; monotonic, seconds.
        keys: whose passes want to know.
        task: asks it now.
    """

    answer: Answer
    asked_at: float | None = None
    keys: set[Key] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


class Background(Generic[Answer]):
    """Questions of one kind, each in the hands of at most one task.

    Args:
        unknown: the answer before there is one.
        pause_s: seconds from an answer until the question is asked again.
        wake: told of each ModelDeployment for which an answer changed.
        at_once: questions asked at the same time.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        unknown: Answer,
        pause_s: Callable[[Answer], float],
        wake: Callable[[Key], None],
        *,
        at_once: int = AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unknown = unknown
        self._pause_s = pause_s
        self._wake = wake
        self._clock = clock
        self._slots = asyncio.Semaphore(at_once)
        self._questions: dict[Hashable, _Question[Answer]] = {}
        self._left: OrderedDict[Hashable, _Question[Answer]] = OrderedDict()
        self._of_key: dict[Key, frozenset[Hashable]] = {}
        self._closed = False

    def take(
        self, key: Key, questions: Mapping[Any, Callable[[], Awaitable[Answer]]]
    ) -> Taken[Answer]:
        """What is known now; who is due is asked, and what the key asked before no longer.

        Args:
            key: whose pass it is.
            questions: how to ask each; that may raise `UnansweredError`. The same question of
                several ModelDeployments is asked once.
        """
        for gone in self._of_key.pop(key, frozenset()) - questions.keys():
            self._leave(key, gone)
        if questions and not self._closed:
            self._of_key[key] = frozenset(questions)
        answers, again_after_s = {}, []
        for name, ask in questions.items():
            question = self._wanted(name, key)
            wait_s = self._wait_s(question)
            if question.task is None and wait_s <= 0.0 and not self._closed:
                # In no context of the pass: it outlives that, and is no part of its trace.
                question.task = asyncio.create_task(
                    self._ask(question, ask), name=f"ask {name}", context=Context()
                )
            answers[name] = question.answer
            pause_s = self._pause_s(question.answer)
            again_after_s.append(max(AGAIN_LEAST_S, wait_s if wait_s > 0.0 else pause_s))
        return Taken(answers, min(again_after_s, default=None))

    async def settled(self) -> None:
        """Wait until nothing is being asked."""
        tasks = [q.task for q in self._questions.values() if q.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Ask nothing any more."""
        self._closed = True
        tasks = [q.task for q in self._questions.values() if q.task is not None]
        for key, names in list(self._of_key.items()):
            for name in names:
                self._leave(key, name)
        self._of_key.clear()
        if tasks:
            await asyncio.wait(tasks)

    def _wanted(self, name: Hashable, key: Key) -> _Question[Answer]:
        question = self._questions.get(name)
        if question is None:
            question = self._left.pop(name, None)
            if question is None or self._wait_s(question) <= 0.0:  # it may be true no more
                question = _Question(self._unknown)
            self._questions[name] = question
        question.keys.add(key)
        return question

    def _leave(self, key: Key, name: Hashable) -> None:
        question = self._questions[name]
        question.keys.discard(key)
        if question.keys:
            return
        del self._questions[name]
        if question.task is not None:
            question.task.cancel()
            question.task, question.asked_at = None, self._clock()
        self._left[name] = question
        while len(self._left) > REMEMBERED:
            self._left.popitem(last=False)

    def _wait_s(self, question: _Question[Answer]) -> float:
        """Seconds until a question is due; 0 or less: it is."""
        if question.asked_at is None:
            return 0.0
        return question.asked_at + self._pause_s(question.answer) - self._clock()

    async def _ask(self, question: _Question[Answer], ask: Callable[[], Awaitable[Answer]]) -> None:
        answer = question.answer
        try:
            async with self._slots:
                answer = await ask()
        except UnansweredError:
            pass
        except Exception as error:  # a defect in one question must not end the operator
            log.error("not asked", exc_info=error)
        question.task, question.asked_at = None, self._clock()
        if answer != question.answer:
            question.answer = answer
            for key in question.keys:
                self._wake(key)
