"""Academic benchmarks of a model, by lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness).

Names of metrics: lm-eval says `acc,none` for the metric acc of answers that went through the filter none, its default. Here that is
`acc`; of another filter, `exact_match/strict-match`: lm-eval's metric and, behind a slash, the filter where it is not none.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.metrics import BenchmarkMetric
from rlhf_api.resource.model import Dtype
from rlhf_api.resource.sampling import Engine
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.result import require_known

from .benchmark_metrics import metrics_of
from .benchmark_tasks import load_tasks, offline, problems, quiet

if TYPE_CHECKING:
    from .benchmark_models import Reading

#: Draws behind a standard error for which there is no formula (of F1, of a correlation): its own error is then some two per cent.
_DRAWS = 1000
_STDERR = "_stderr"
_NO_FILTER = "none"


@dataclass(frozen=True)
class MetricValue:
    """stderr: None where lm-eval gives none (a single sample; a metric that it knows no error of). higher_is_better: None where the
    task, or the members of a group, do not say."""

    value: float
    stderr: float | None
    higher_is_better: bool | None


@dataclass(frozen=True)
class BenchmarkResult:
    """Of a task, or of a group over its members.

    metrics:       by name, as this module's docstring has it; empty for a group that combines nothing.
    samples:       those that were answered. of_samples: those that the task has. Of a group, the sums.
    truncated:     samples of which a prompt did not fit into the context and lost its beginning; where it is not 0, the values are
                   not those of the task as it is meant.
    shots:         few-shot examples in front of each question; None for a group whose members differ.
    version:       the task's own, as text.
    configuration: SHA-256 (64 hex digits) of the task as it was asked, shots included: functions by their source, local data by
                   their contents. Of a group, of its own and its members'.
    members:       names of a group's direct members; empty for a task.
    """

    name: str
    metrics: Mapping[str, MetricValue]
    samples: int
    of_samples: int
    truncated: int
    shots: int | None
    version: str
    configuration: str
    members: tuple[str, ...] = ()


def missing(tasks: Sequence[str], *, trust_code: bool = False) -> list[str]:
    """What keeps each of `tasks` from being run here, in sentences for a person; empty: nothing.

    That is an unknown name (with the nearest one), a task file that is no YAML or runs Python, data that are not on this machine,
    code of the model's that would be run, pictures, a Python package that is not installed. No model is loaded, nothing is
    fetched. It takes six seconds in a process that has not looked yet, and reads the data of the tasks.
    """
    return problems(tasks, trust_code=trust_code)


def tasks_revision(tasks: Sequence[str], *, trust_code: bool = False, gated: Sequence[BenchmarkMetric] = ()) -> str:
    """SHA-256 (64 hex digits) of all tasks and groups behind `tasks`: configurations, functions' sources, contents of local data.

    Raises ConfigurationProblem with everything that `missing` finds, and with what of `gated` they do not measure. The
    same list gives the same in every process.
    """
    loaded = load_tasks(tasks, trust_code=trust_code)
    require_known(gated, metrics_of(loaded))
    return _revision(loaded)


def run_benchmarks(
    folder: Path,
    tasks: Sequence[str],
    *,
    backend: str,
    dtype: Dtype,
    seed: int,
    vocabulary: Vocabulary | None = None,
    shots: int | None = None,
    limit: int | None = None,
    max_length: int | None = None,
    engine: Engine | None = None,
    trust_code: bool = False,
    revision: str | None = None,
) -> dict[str, BenchmarkResult]:
    """By name, groups first, all that lm-eval measures of the model in `folder`.

    folder:     a checkpoint of Hugging Face, as our exports are; code in it is never run.
    tasks:      names that lm-eval knows (tasks, groups, tags), or paths of task files, which end in .yaml; the data files that
                such a file names are looked for beside it.
    backend:    "vllm", on GPUs and on CPUs, or "hf": transformers, for what vLLM does not have.
    seed:       of the few-shot examples, and of samples where a task wants any. Sets the generators of random, numpy and torch.
    vocabulary: the policy's: prompts are conversations under its template, few-shot examples turns of them, and its stop ids end
                answers. None: plain text, no chat template.
    shots:      few-shot examples in front of each question; None: each task's own number. A task that says 0 itself keeps it.
    limit:      the first so many samples of each task; None: all. For trying things out: nobody publishes such values.
    max_length: tokens of the context, where less than the model's own; vLLM on a CPU reserves memory for it.
    engine:     settings of vLLM.
    trust_code: whether a task file may name Python functions.
    revision:   what `tasks_revision` said of the tasks when the run began; None: whatever they are now.

    Nothing is fetched: data come from files, or from a cache of Hugging Face on this machine. lm-eval's own words are kept from
    the log. Raises ConfigurationProblem with all that `missing` finds, before the model is loaded; for a folder that holds no such
    model; for a task whose answers leave no room for a prompt.
    """
    if limit is not None and limit < 1:
        raise ConfigurationProblem(f"A limit of {limit} leaves no sample of any benchmark. Name at least 1, or none.")
    loaded = load_tasks(tasks, trust_code=trust_code)
    if revision is not None and _revision(loaded) != revision:
        raise ConfigurationProblem(
            f"The benchmarks {', '.join(tasks)} are not those that preflight found: a task's file, its data or lm-eval itself is "
            "another now. Bring back what was there, or delete the run and apply it again: finished stages are found in the store."
        )
    from lm_eval.evaluator import evaluate

    from .benchmark_models import Backend, close_model, open_model

    with quiet(), offline(), _one_process():
        model = open_model(folder, vocabulary, Backend(backend), engine or Engine(), dtype, max_length, seed)
        try:
            _seed(seed, loaded["tasks"].values(), shots)
            answered = evaluate(
                model,
                loaded,
                limit=limit,
                bootstrap_iters=_DRAWS,
                log_samples=False,
                apply_chat_template=vocabulary is not None,
                fewshot_as_multiturn=True,
            )
            return _results(loaded, answered, model.reading)
        finally:
            close_model(model)


def values(results: Mapping[str, BenchmarkResult]) -> dict[str, dict[str, float]]:
    """Task → metric → value."""
    return {name: {metric: one.value for metric, one in result.metrics.items()} for name, result in results.items()}


def _seed(seed: int, tasks: Any, shots: int | None) -> None:
    """As lm-eval's simple_evaluate does it, which would load the tasks again, and ask git and pip about this machine."""
    import langdetect
    import torch

    # IFEval asks it for the language of an answer, and unseeded it says of the same text now this, now that (lm-eval's issue 4213).
    langdetect.DetectorFactory.seed = 0
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    for task in tasks:
        own = task.get_config("num_fewshot")
        if own is None or (shots is not None and own != 0):
            task.set_config(key="num_fewshot", value=shots or 0)
        task.set_fewshot_seed(seed=seed)


@contextmanager
def _one_process() -> Iterator[None]:
    """lm-eval would fork for a standard error, and a fork of a process that has an engine hangs."""
    name = "DISABLE_MULTIPROC"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _results(loaded: Mapping[str, Any], answered: Mapping[str, Any], reading: Reading) -> dict[str, BenchmarkResult]:
    tasks: dict[str, BenchmarkResult] = {}
    for name, task in loaded["tasks"].items():
        counted = answered["n-samples"][name]
        tasks[name] = BenchmarkResult(
            name=name,
            metrics=_metrics(answered, name),
            samples=int(counted["effective"]),
            of_samples=int(counted["original"]),
            truncated=len(reading.cut[name]),
            shots=int(answered["n-shot"][name]),
            version=str(answered["versions"][name]),
            configuration=_digest(_configuration(task)),
        )
    groups = {name: _group(name, group, answered, tasks) for name, group in loaded.get("groups", {}).items()}
    return {**groups, **tasks}


def _group(name: str, group: Any, answered: Mapping[str, Any], tasks: Mapping[str, BenchmarkResult]) -> BenchmarkResult:
    leaves = [tasks[task.task_name] for task in group.get_all_tasks()]
    shots = {leaf.shots for leaf in leaves}
    own = [_plain(group.to_dict()), [[leaf.name, leaf.configuration] for leaf in leaves]]
    return BenchmarkResult(
        name=name,
        metrics=_metrics(answered, name),
        samples=sum(leaf.samples for leaf in leaves),
        of_samples=sum(leaf.of_samples for leaf in leaves),
        truncated=sum(leaf.truncated for leaf in leaves),
        shots=shots.pop() if len(shots) == 1 else None,
        version=str(group.version),
        configuration=_digest(own),
        members=tuple(group.child_names),
    )


def _metrics(answered: Mapping[str, Any], name: str) -> dict[str, MetricValue]:
    """Those that are numbers; a task's code may measure what is none."""
    found = answered["results"].get(name, {})
    better = answered["higher_is_better"].get(name, {})
    metrics: dict[str, MetricValue] = {}
    for key, value in found.items():
        metric, comma, of_filter = key.partition(",")
        if not comma or metric.endswith(_STDERR) or not _is_number(value):
            continue
        error = found.get(f"{metric}{_STDERR},{of_filter}")
        called = metric if of_filter == _NO_FILTER else f"{metric}/{of_filter}"
        metrics[called] = MetricValue(float(value), float(error) if _is_number(error) else None, better.get(metric))
    return metrics


def _revision(loaded: Mapping[str, Any]) -> str:
    tasks = {name: _configuration(task) for name, task in loaded["tasks"].items()}
    groups = {name: _plain(group.to_dict()) for name, group in loaded.get("groups", {}).items()}
    return _digest([sorted(tasks.items()), sorted(groups.items())])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _configuration(task: Any) -> Any:
    """Without where its file lies: the same task elsewhere is the same."""
    config = task.config.to_dict(keep_callable=True)
    config["metadata"] = {key: value for key, value in (config.get("metadata") or {}).items() if key != "config_source"}
    options = config.get("dataset_kwargs") or {}
    if "data_files" in options:
        config["dataset_kwargs"] = {**options, "data_files": _contents(options["data_files"])}
    return _plain(config)


def _contents(files: Any) -> Any:
    if isinstance(files, Mapping):
        return {split: _contents(file) for split, file in files.items()}
    if isinstance(files, list):
        return [_contents(file) for file in files]
    path = Path(files)
    return _sha256(path) if path.is_file() else path.name


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """As JSON has it, and the same in every process."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value):
        try:
            return inspect.getsource(value)
        except (OSError, TypeError):
            return getattr(value, "__qualname__", type(value).__qualname__)
    return type(value).__qualname__


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
