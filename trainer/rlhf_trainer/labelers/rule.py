"""Rule: a Python function scores, no model. `module:function` must be importable in the image."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem

from .base import Response, ScoreNotFinite, ignore_progress


class ScoreFunction(Protocol):
    """The signature of an entry point: the conversation up to the user's last turn, and the response's text."""

    def __call__(self, messages: Sequence[Mapping[str, str]], response: str) -> float:
        """A finite score; more is better."""


class RuleLabeler:
    def __init__(self, name: str, function: ScoreFunction) -> None:
        self._name = name
        self._function = function

    @classmethod
    def load(cls, entry_point: str) -> RuleLabeler:
        """Raises ConfigurationProblem when there is no such function."""
        module, _, name = entry_point.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigurationProblem(
                f"The rule {entry_point} cannot be loaded: {error}. Name module:function of a package that is in the image."
            ) from error
        except (Exception, SystemExit) as error:
            raise ConfigurationProblem(
                f"The rule {entry_point} cannot be loaded: its module raises {type(error).__name__} when it is imported: {error}. "
                "Correct the module."
            ) from error
        if not callable(function):
            raise ConfigurationProblem(f"The rule {entry_point} is no function.")
        return cls(entry_point, function)

    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ignore_progress) -> list[float]:
        scores = []
        for done, response in enumerate(responses, start=1):
            try:
                value = float(self._function(response.messages, response.text))
            except Exception as error:
                raise ApplicationProblem(
                    f"The rule {self._name} raised {type(error).__name__}: {error}, for {response.shown}.", reason="RuleFailed"
                ) from error
            if not math.isfinite(value):
                raise ScoreNotFinite(f"The rule {self._name} answered {value} for {response.shown}. Let it answer a finite number.")
            scores.append(value)
            on_progress(done)
        return scores
