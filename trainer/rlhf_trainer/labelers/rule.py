"""Rule: a Python function scores, no model. `module:function` must be importable where stages run (docs/rules.md)."""

from __future__ import annotations

import importlib
import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rlhf_trainer.data.messages import Tools
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem

from .base import Response, ScoreNotFinite, ignore_progress
from .rule_code import code_revision

#: Characters that an error shows of what a rule answered.
_SHOWN = 80


class ScoreFunction(Protocol):
    """The signature of an entry point: the conversation up to the user's last turn, and the response's text.

    One that names a third parameter `tools` gets it where the prompt has any; it needs a default.
    """

    def __call__(self, messages: Sequence[Mapping[str, str]], response: str, /) -> float:
        """A finite score; more is better."""


class RuleFailed(ConfigurationProblem):
    """The same function would be asked the same again: no other attempt answers otherwise, until somebody mends it."""

    reason = "RuleFailed"


class RuleLabeler:
    def __init__(self, entry_point: str, function: ScoreFunction) -> None:
        self._name = entry_point
        self._function = function
        self._takes_tools = _takes_tools(function)

    @classmethod
    def load(cls, entry_point: str, revision: str | None = None) -> RuleLabeler:
        """Raises ConfigurationProblem when there is no such function, when it cannot be called as one, and when its code is not
        the one of `revision`. Without a revision any code will do.
        """
        labeler = cls(entry_point, _function_of(entry_point))
        if revision is not None and (found := labeler.revision) != revision:
            raise ConfigurationProblem(
                f"The rule {entry_point} has other code than when this run began: it was resolved to {revision}, and is {found} "
                "now. Put the former code back; or delete the run and begin it again, with what it finds in the store."
            )
        return labeler

    @property
    def revision(self) -> str | None:
        """Of its code as it is now; None for a rule of ours."""
        return code_revision(self._name.partition(":")[0], self._function)

    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ignore_progress) -> list[float]:
        """Raises RuleFailed and ScoreNotFinite; ApplicationProblem where the machine, and not the function, may have failed."""
        scores = []
        for done, response in enumerate(responses, start=1):
            scores.append(self._score(response.messages, response.text, response.tools, response.shown))
            on_progress(done)
        return scores

    def try_on(self, messages: Sequence[Mapping[str, str]], text: str, tools: Tools = None) -> None:
        """Asks it once, to know whether it answers at all; raises as `score` does."""
        asked = messages[-1]["content"] if messages else ""
        self._score(messages, text, tools, f"the response {text!r} to the prompt {_short(asked)}, with which preflight tried it")

    def _score(self, messages: Sequence[Mapping[str, str]], text: str, tools: Tools, shown: str) -> float:
        beside = {} if tools is None or not self._takes_tools else {"tools": tools}
        try:
            answered = self._function(messages, text, **beside)
        except (OSError, MemoryError) as error:
            raise ApplicationProblem(self._raised(error, shown), reason=RuleFailed.reason) from error
        except (Exception, SystemExit) as error:
            raise RuleFailed(f"{self._raised(error, shown)} It must answer every response; mend it.") from error
        value = _number(answered)
        if value is None:
            raise RuleFailed(f"The rule {self._name} answered {_short(answered)} for {shown}. Let it answer a finite number.")
        if not math.isfinite(value):
            raise ScoreNotFinite(f"The rule {self._name} answered {value} for {shown}. Let it answer a finite number.")
        return value

    def _raised(self, error: BaseException, shown: str) -> str:
        """The innermost line is where a person looks; the whole trace would say no more in a status."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        return f"The rule {self._name} raised {type(error).__name__}: {error} ({where}), for {shown}."


def _function_of(entry_point: str) -> ScoreFunction:
    module, _, name = entry_point.partition(":")
    # A file may be newer than what this process, or the one that it was forked from, has seen of its folder.
    importlib.invalidate_caches()
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationProblem(
            f"The rule {entry_point} cannot be loaded: {error}. Name module:function of a package that is in the image or, for run "
            "--local, in the folder where rlhfctl was called or on PYTHONPATH."
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigurationProblem(
            f"The rule {entry_point} cannot be loaded: its module raises {type(error).__name__} when it is imported: {error}. "
            "Correct the module."
        ) from error
    if not callable(function):
        raise ConfigurationProblem(f"The rule {entry_point} is no function.")
    _require_signature(entry_point, function)
    return function  # type: ignore[no-any-return]


def _require_signature(entry_point: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        # Of some functions in C there is none to look at.
        return
    try:
        signature.bind([], "")
    except TypeError as error:
        raise ConfigurationProblem(
            f"The rule {entry_point} takes {signature}, and is called with two arguments, the prompt's messages and the response's "
            f"text: {error}. Write def {entry_point.partition(':')[2]}(messages, response)."
        ) from error


def _takes_tools(function: Callable[..., Any]) -> bool:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return False
    return any(
        parameter.name == "tools"
        and (parameter.kind is parameter.KEYWORD_ONLY or (parameter.kind is parameter.POSITIONAL_OR_KEYWORD and place >= 2))
        for place, parameter in enumerate(parameters)
    )


def _number(answered: Any) -> float | None:
    """A float, also from a bool (right or wrong) or a number of numpy or torch; None for what is no number, such as "0.5"."""
    if isinstance(answered, str | bytes | bytearray):
        return None
    try:
        return float(answered)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError, RuntimeError):
        return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
