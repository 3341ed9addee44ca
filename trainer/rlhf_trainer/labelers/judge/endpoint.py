"""A server with OpenAI's chat completions: asked by several threads, patiently, within a budget; its errors in words."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rlhf_api.resource.labeler import JudgeEndpoint
from rlhf_trainer.runtime.errors import ConfigurationProblem, StageError, Transient
from rlhf_trainer.runtime.seeds import hashed_seed

from .asking import ANSWER_TOKENS, Answer, Asked
from .key import Key, key_of

#: Requests in the hands of each thread at a time.
_AHEAD = 32
_SHOWN = 300
_CUT = "length"
_FILTER = "content_filter"
#: Statuses of a moment; beside them all from 500 on.
_PASSING = (408, 409, 429)
#: Of 429, which no waiting changes.
_NO_QUOTA = "insufficient_quota"


@dataclass(frozen=True)
class Patience:
    """Between tries, in seconds: the bound of the first wait, which doubles, and of the longest.

    `pause` ends when the event is set.
    """

    first: float = 1.0
    longest: float = 60.0
    pause: Callable[[threading.Event, float], object] = threading.Event.wait


class Endpoint:
    """One server, one model. `requests` were sent so far, tries that failed among them."""

    def __init__(self, spec: JudgeEndpoint, seed: int, patience: Patience = Patience()) -> None:
        """Raises ConfigurationProblem where there is no key to send."""
        from openai import OpenAI

        self._spec, self._seed, self._patience = spec, seed, patience
        self._key: Key = key_of(spec)
        self._client = OpenAI(base_url=spec.base_url, api_key=self._key.value, timeout=spec.timeout_seconds, max_retries=0)
        self._lock = threading.Lock()
        self._requests = 0

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"

    @property
    def requests(self) -> int:
        return self._requests

    @property
    def name(self) -> str:
        return f"{self._spec.model} at {self._spec.base_url}"

    def require_budget(self, wanted: int) -> None:
        """Raises ConfigurationProblem where so many more requests are not allowed: before any of them is paid for."""
        bound = self._spec.max_requests
        if bound is not None and self._requests + wanted > bound:
            raise self._spent(f"{wanted} more are needed")

    def ask(self, questions: Sequence[Asked]) -> Iterator[Answer]:
        """The answer to each, in order, whatever order they come in. The first error stops the others: each request may cost.

        Raises ConfigurationProblem where asking again would change nothing; Transient when the endpoint was away for all tries.
        """
        stopped = threading.Event()
        window = _AHEAD * self._spec.concurrency
        pool = ThreadPoolExecutor(self._spec.concurrency, thread_name_prefix="judge")
        try:
            for begin in range(0, len(questions), window):
                futures = [pool.submit(self._answer, asked, stopped) for asked in questions[begin : begin + window]]
                for future in futures:
                    error = future.exception()
                    if error is not None:
                        raise _cause(futures, error)
                    yield future.result()
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, asked: Asked, stopped: threading.Event) -> Answer:
        try:
            return self._patiently(asked, stopped)
        except BaseException:
            stopped.set()
            raise

    def _patiently(self, asked: Asked, stopped: threading.Event) -> Answer:
        """Full jitter: a random part of a bound that doubles (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter)."""
        attempt = 0
        while True:
            if stopped.is_set():
                raise _Stopped
            found = self._try(asked)
            if isinstance(found, Answer):
                return found
            if isinstance(found, StageError):
                raise found
            if attempt == self._spec.retries:
                raise self._given_up(found, asked)
            bound = min(self._patience.longest, self._patience.first * 2**attempt)
            jitter = random.Random(hashed_seed(self._seed, "judge", asked.place, attempt)).random()
            self._patience.pause(stopped, max(bound * jitter, min(found.after, self._patience.longest)))
            attempt += 1

    def _given_up(self, found: _Passing, asked: Asked) -> StageError:
        tries = f"{self._spec.retries + 1} times" if self._spec.retries else "once"
        told = f"The judge {self.name} {found.what}, asked {tries} about {asked.name}."
        if found.lasting:
            return ConfigurationProblem(f"{told} Set baseUrl to what stands before /chat/completions.", reason="JudgeUnreadable")
        return Transient(f"{told} {self._requests} requests were sent.", reason="JudgeUnavailable")

    def _try(self, asked: Asked) -> Answer | _Passing | StageError:
        """One request. An error comes back and is not raised here: what the client raises may hold the key, its context."""
        import openai

        self._count()
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=self._spec.model,
                messages=[{"role": "user", "content": asked.text}],
                temperature=0,
                max_tokens=ANSWER_TOKENS,
            )
            return self._read(raw.http_response.content)
        except openai.APITimeoutError:
            return _Passing(f"has not answered within {self._spec.timeout_seconds} s")
        except openai.APIConnectionError as error:
            return _Passing(f"cannot be reached, or hangs up ({self._words(str(error.__cause__ or error))})")
        except openai.APIStatusError as error:
            return self._status(error.status_code, error.body, error.response.headers.get("retry-after"), asked)
        except openai.OpenAIError as error:
            return ConfigurationProblem(f"The judge {self.name} cannot be asked: {self._words(str(error))}")

    def _count(self) -> None:
        with self._lock:
            bound = self._spec.max_requests
            if bound is not None and self._requests >= bound:
                raise self._spent("they are not enough, with those that were repeated")
            self._requests += 1

    def _spent(self, why: str) -> ConfigurationProblem:
        return ConfigurationProblem(
            f"The judge {self.name} was asked {self._requests} times by this process, and endpoint.maxRequests allows "
            f"{self._spec.max_requests}: {why}. Raise it, or ask less: fewer prompts, or a smaller sample.completionsPerPrompt.",
            reason="JudgeBudgetSpent",
        )

    def _read(self, body: bytes) -> Answer | _Passing:
        try:
            choice = json.loads(body)["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            text = message.get("content") or ""
            refused = bool(message.get("refusal")) or reason == _FILTER
            if not isinstance(text, str):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError):
            shown = self._words(body.decode(errors="replace"))
            return _Passing(f"answers with what is no chat completion ({shown!r})", lasting=True)
        return Answer(self._key.hidden(text), cut=reason == _CUT, refused=refused)

    def _status(self, status: int, body: object, after: str | None, asked: Asked) -> Answer | _Passing | StageError:
        said = _said(body)
        if status == 400 and _FILTER in str(said.get("code")):
            return Answer("", refused=True)
        if (status in _PASSING and said.get("code") != _NO_QUOTA) or status >= 500:
            # What such an error says is seldom more than its number, and often a page.
            return _Passing(f"answers with HTTP {status}", after=_seconds(after))
        if status in (401, 403):
            # It may repeat the key, whole or in part, so that nothing of it is shown.
            return ConfigurationProblem(
                f"The judge {self.name} refuses the key (HTTP {status}): {self._key.told}.", reason="JudgeRefusesKey"
            )
        words = self._words(str(said.get("message") or ""))
        what = f"HTTP {status}{f': {words}' if words else ''}"
        if status == 404:
            return ConfigurationProblem(
                f"The judge's endpoint {self._spec.base_url} has no model {self._spec.model!r}, or no chat completions ({what}). "
                "Set endpoint.model to a name that it lists under /models, and baseUrl to what stands before /chat/completions."
            )
        return ConfigurationProblem(f"The judge {self.name} refuses to be asked about {asked.name} ({what}).")

    def _words(self, text: str) -> str:
        """What others said, for a message: in one line, without the key, clipped."""
        line = " ".join(self._key.hidden(text).split())
        return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


@dataclass(frozen=True)
class _Passing:
    """What another try may mend. after: seconds that the endpoint asks for. lasting: after all tries it is no matter of waiting."""

    what: str
    after: float = 0.0
    lasting: bool = False


class _Stopped(Exception):  # noqa: N818 - never seen outside
    """Another request has failed."""


def _cause(futures: Sequence[Future[Answer]], error: BaseException) -> BaseException:
    """What stopped the others."""
    if isinstance(error, _Stopped):
        for future in futures:
            if not future.cancelled() and (found := future.exception()) is not None and not isinstance(found, _Stopped):
                return found
    return error


def _said(body: object) -> dict[str, Any]:
    """`{"message": …, "code": …}`; servers put it into `error` or not."""
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    return body if isinstance(body, dict) else {"message": body}


def _seconds(header: str | None) -> float:
    try:
        found = float(header or 0)
    except ValueError:
        return 0.0
    return found if 0 <= found < float("inf") else 0.0
