"""Tasks of lm-evaluation-harness by their names or files: what of them cannot be run here, in words, before a model is loaded."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line

_FUNCTION = "!function"
#: How a task file ends; any other text is a name.
_ENDINGS = (".yaml", ".yml")


class _Unfit(Exception):  # noqa: N818 - as in runtime/errors.py
    """What a task cannot be run for, in words."""


class _NoData(Exception):  # noqa: N818 - as in runtime/errors.py
    """Data of NLTK that a task would fetch while it is loaded."""


@dataclass(frozen=True)
class _Group:
    """Of a user's file: what lm-eval's configuration of a group has, and its members as they are loaded."""

    name: str
    config: dict[str, Any]
    members: Sequence[_Spec]


#: What lm-eval loads: a name that it knows, a task as a mapping, a group of such.
_Spec: TypeAlias = str | dict[str, Any] | _Group


def load_tasks(tasks: Sequence[str], *, trust_code: bool) -> dict[str, Any]:
    """What `TaskManager.load` of lm-eval answers: {"tasks", "groups", "group_map"}.

    Raises ConfigurationProblem with everything that `problems` finds.
    """
    found, fit = _looked_at(tasks, trust_code)
    if found:
        raise ConfigurationProblem(" ".join(found))
    with quiet(), offline():
        # Of a name that stands for several, each was made by itself.
        made = [task for spec, parts in fit for task in (parts if isinstance(spec, dict) else _made(spec))]
        answer: dict[str, Any] = _manager().load(made)
    return answer


def problems(tasks: Sequence[str], *, trust_code: bool) -> list[str]:
    """What keeps each of them from being run, a sentence or more each; empty: nothing. Nothing is fetched."""
    return _looked_at(tasks, trust_code)[0]


@contextmanager
def quiet() -> Iterator[None]:
    """lm-eval speaks of every prompt, prints, and draws bars. Errors still come through, and so do lines of a log that is open."""
    names = ("lm_eval", "datasets", "evaluate")
    levels = {name: logging.getLogger(name).level for name in names}
    with ExitStack() as stack:
        void = stack.enter_context(Path(os.devnull).open("w"))
        stack.enter_context(redirect_stdout(void))
        stack.enter_context(redirect_stderr(void))
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def offline() -> Iterator[None]:
    """As HF_HUB_OFFLINE=1, for as long as it is open: the libraries read the variable when they are imported, and are already.

    lm-eval's IFEval asks NLTK for its data when it is imported, and goes on without where they cannot be fetched: the first answer
    whose sentences are counted fails then, when all of them are sampled.
    """
    import datasets.config
    import evaluate.config
    import huggingface_hub.constants
    import nltk

    places: list[tuple[Any, str, Any]] = [
        (huggingface_hub.constants, "HF_HUB_OFFLINE", True),
        (datasets.config, "HF_HUB_OFFLINE", True),
        (datasets.config, "HF_DATASETS_OFFLINE", True),
        (evaluate.config, "HF_EVALUATE_OFFLINE", True),
        (nltk, "download", _refuse),
    ]
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(places, before, strict=True):
            setattr(module, name, value)


def _refuse(name: str, *_: Any, **__: Any) -> None:
    raise _NoData(name)


def _looked_at(tasks: Sequence[str], trust_code: bool) -> tuple[list[str], list[tuple[_Spec, list[Any]]]]:
    """What is wrong; and those with which nothing is, with lm-eval's own Task of each of their parts."""
    found: list[str] = []
    fit: list[tuple[_Spec, list[Any]]] = []
    for task in tasks:
        try:
            spec: _Spec = _file(Path(task), trust_code) if task.endswith(_ENDINGS) else _named(task)
            fit.append((spec, _require_data(task, spec)))
        except _Unfit as unfit:
            found.append(str(unfit))
    # lm-eval says so of a task and a group that has it, and of two of one name answers one of them.
    named = Counter(part if isinstance(part, str) else str(part["task"]) for spec, _ in fit for part in _parts(spec))
    if repeated := [name for name, times in named.items() if times > 1]:
        found.append(f"Of these benchmarks more than one has the task {', '.join(repeated[:3])}. Name each task once.")
    return found, fit


@cache
def _manager() -> Any:
    """The tasks that come with lm-eval, some 14,000 names: six seconds, once a process."""
    from lm_eval.tasks import TaskManager

    with quiet():
        return TaskManager()


def _named(name: str) -> str:
    if name not in _manager().task_index:
        near = get_close_matches(name, _manager().all_tasks, n=3, cutoff=0.7)
        guess = f"did you mean {' or '.join(near)}?" if near else "correct the name."
        raise _Unfit(
            f"lm-evaluation-harness has no task {name}; {guess} A task of your own is named by its file, which ends in .yaml."
        )
    for leaf in _leaves(name):
        _require_safe(name if leaf == name else f"{name}, of which {leaf} is a part,", _manager().task_index[leaf].cfg or {})
    return name


def _leaves(name: str) -> list[str]:
    """The tasks of a group or tag among those that come with lm-eval; of a task, itself."""
    if (children := _children(name)) is None:
        return [name]
    known = [child for child in children if child in _manager().task_index and child != name]
    return list(dict.fromkeys(leaf for child in known for leaf in _leaves(child)))


def _children(name: str) -> list[str] | None:
    """What stands in a group or tag; None of a task."""
    entry = _manager().task_index[name]
    if entry.kind.name == "TAG":
        return sorted(entry.tags)
    return list(_listed((entry.cfg or {}).get("task"))) if entry.kind.name == "GROUP" else None


def _listed(members: Any) -> Iterator[str]:
    """Of a group's members the names, also of tasks that have no file but stand there whole."""
    for member in members if isinstance(members, list) else [members]:
        if isinstance(member, str):
            yield member
        elif isinstance(member, dict) and isinstance(member.get("task"), list):
            yield from _listed(member["task"])
        elif isinstance(member, dict):
            yield str(member.get("group", member.get("task")))


def _has_own(name: str) -> bool:
    """Whether tasks stand in a group whole: they are made with it alone."""
    children = _children(name) or ()
    return any(child not in _manager().task_index or (child != name and _has_own(child)) for child in children)


def _require_safe(name: str, config: Mapping[str, Any]) -> None:
    """A task that runs what the model writes would run it in the stage's pod, which has the run's credentials. And of a metric that
    it does not have itself, lm-eval fetches the code and runs it."""
    if config.get("unsafe_code"):
        raise _Unfit(f"Benchmark {name} runs code that the model writes, and no stage does that. Leave it out.")
    import lm_eval.api.metrics  # noqa: F401 - registers them
    from lm_eval.api.registry import metric_registry

    listed = config.get("metric_list")
    for one in listed if isinstance(listed, list) and not config.get("process_results") else ():
        metric = one.get("metric") if isinstance(one, dict) else None
        if isinstance(metric, str) and (one.get("hf_evaluate") or not (metric in metric_registry or _is_function(metric))):
            raise _Unfit(
                f"Benchmark {name} has the metric {metric}, which lm-evaluation-harness lacks and would fetch. Leave it out."
            )


def _is_function(metric: str) -> bool:
    """Where functions are not loaded their place stands for them: /folder/module.function."""
    return metric.startswith("/")


def _file(path: Path, trust_code: bool) -> _Spec:
    """A task or a group of a user's; files that it names are looked for beside it."""
    config = _read(path, trust_code)
    group = "group" in config
    name = config["group"] if group else config.get("task")
    if not isinstance(name, str) or not name:
        raise _Unfit(f"{path} says neither `task: NAME` nor `group: NAME`. Add the name of the task.")
    if name in _manager().task_index:
        raise _Unfit(f"{path} calls its task {name}, as one of lm-evaluation-harness is called. Give it another name.")
    if group:
        members = config.pop("task", None)
        if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
            raise _Unfit(f"The group of {path} has no list of members. Name tasks there, or task files beside it.")
        return _Group(name, config, [_member(path, member, trust_code) for member in members])
    _require_safe(name, config)
    options = config.get("dataset_kwargs")
    if isinstance(options, dict) and "data_files" in options:
        config["dataset_kwargs"] = {**options, "data_files": _placed(path, options["data_files"])}
    return config


def _member(path: Path, member: str, trust_code: bool) -> _Spec:
    return _file(path.parent / member, trust_code) if member.endswith(_ENDINGS) else _named(member)


def _made(spec: _Spec) -> list[Any]:
    """lm-eval's own Task or Group; of a tag, its tasks."""
    if isinstance(spec, _Group):
        from lm_eval.api.group import Group
        from lm_eval.config.group import GroupConfig

        group = Group.from_config(GroupConfig(**spec.config))
        for member in spec.members:
            for made in _made(member):
                group.add(made)
        return [group]
    loaded = _manager().load([spec])
    if isinstance(spec, str) and spec in loaded["groups"]:
        return [loaded["groups"][spec]]
    return list(loaded["tasks"].values())


def _read(path: Path, trust_code: bool) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _Unfit(f"The task file {path} cannot be read: {first_line(error)}. Correct its path, or mount it.") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise _Unfit(
            f"The task file {path} is no YAML{where}: {getattr(error, 'problem', None) or first_line(error)}. Correct it."
        ) from error
    if not isinstance(node, yaml.MappingNode):
        raise _Unfit(f"The task file {path} holds no mapping. A task says `task: NAME`, dataset_path, doc_to_text and so on.")
    # Whoever may write a manifest may name code, and does for a rule: in /opt/rules, at a revision that fingerprints cover. A task
    # file is data that is passed around. What it names would run with the stage's credentials, and no fingerprint would know of it.
    # So somebody has to say that it may. This is no sandbox: a Jinja template of such a file is one of lm-eval's own, unrestricted.
    if not trust_code and (functions := _functions(node)):
        raise _Unfit(
            f"The task file {path} runs Python: {_FUNCTION} {functions[0]}. That is refused unless the manifest allows it. Write "
            "it as a Jinja template, or prepare the data before."
        )
    from lm_eval.tasks._yaml_loader import load_yaml

    for included in _included(node):
        other = path.parent / included
        if not _came_with_lm_eval(other):
            _read(other, trust_code)
    try:
        with quiet(), offline():
            config: dict[str, Any] = load_yaml(path, resolve_func=True)
    except _NoData as error:
        raise _without_nltk_data(str(path), error) from error
    except Exception as error:  # of a file that it includes, or of code that it names
        raise _Unfit(f"lm-evaluation-harness cannot read the task file {path}: {first_line(error)}. Correct it.") from error
    return config


def _functions(node: yaml.Node) -> list[str]:
    if node.tag == _FUNCTION:
        return [str(node.value)]
    if isinstance(node, yaml.MappingNode):
        return [found for pair in node.value for part in pair for found in _functions(part)]
    return [found for part in node.value for found in _functions(part)] if isinstance(node, yaml.SequenceNode) else []


def _included(node: yaml.MappingNode) -> list[str]:
    for key, value in node.value:
        if key.value == "include":
            return [part.value for part in value.value] if isinstance(value, yaml.SequenceNode) else [value.value]
    return []


def _came_with_lm_eval(path: Path) -> bool:
    import lm_eval

    return path.resolve().is_relative_to(Path(lm_eval.__file__).resolve().parent)


def _placed(path: Path, files: Any) -> Any:
    if isinstance(files, dict):
        return {split: _placed(path, file) for split, file in files.items()}
    if isinstance(files, list):
        return [_placed(path, file) for file in files]
    if "://" in str(files):
        raise _Unfit(f"The task file {path} names data at {files}, and no benchmark's data are fetched. Put the file beside it.")
    return str((path.parent / str(files)).resolve())


def _require_data(name: str, spec: _Spec) -> list[Any]:
    """Each of its tasks by itself: lm-eval reads the data of one as it makes it."""
    unfit: list[_Unfit] = []
    made: list[Any] = []
    for part in _parts(spec):
        try:
            made += _require_one(part if isinstance(part, str) else str(part["task"]), part)
        except _Unfit as error:
            unfit.append(error)
    if unfit:
        others = f" Of {name}, {len(unfit) - 1} more cannot be run either." if len(unfit) > 1 else ""
        raise _Unfit(f"{unfit[0]}{others}")
    whole = _has_own(spec) if isinstance(spec, str) else isinstance(spec, _Group)
    return _require_one(name, spec) if whole else made


def _parts(spec: _Spec) -> list[str | dict[str, Any]]:
    if isinstance(spec, _Group):
        return [part for member in spec.members for part in _parts(member)]
    return [*_leaves(spec)] if isinstance(spec, str) else [spec]


def _require_one(name: str, spec: _Spec) -> list[Any]:
    from datasets.exceptions import DatasetGenerationError

    try:
        with quiet(), offline():
            made = _made(spec)
    except _NoData as error:
        raise _without_nltk_data(name, error) from error
    except ImportError as error:
        raise _Unfit(
            f"Benchmark {name} needs a Python package that is not installed ({first_line(error)}). Leave it out."
        ) from error
    except (ConnectionError, FileNotFoundError) as error:
        raise _Unfit(
            f"The data of benchmark {name}{_source(spec)} are not on this machine ({first_line(error)}), and no stage fetches "
            "them. Mount a cache of Hugging Face (HF_HOME) that datasets.load_dataset has put them into, or name a "
            "task file whose data are files."
        ) from error
    except Exception as error:  # whatever a task's file or its code makes lm-eval raise
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        told = f"{type(cause).__name__}: {first_line(cause)}"
        if isinstance(cause, KeyError):
            told = f"there is no {cause} among its splits and columns"
        raise _Unfit(f"lm-evaluation-harness cannot make {name}: {told}. Correct it.") from error
    for one in made:
        for task in one.get_all_tasks() if hasattr(one, "get_all_tasks") else [one]:
            _require_fit(task)
    return made


def _without_nltk_data(name: str, error: _NoData) -> _Unfit:
    return _Unfit(
        f"Benchmark {name} needs NLTK's data {error}, which are not on this machine, and no stage fetches them. Fetch them with "
        f"`python -m nltk.downloader -d FOLDER {error}`, and give stages the folder: a volume, and NLTK_DATA in podDefaults.env."
    )


def _source(spec: _Spec) -> str:
    if isinstance(spec, _Group):
        return ""
    config = spec if isinstance(spec, dict) else _manager().task_index[spec].cfg or {}
    parts = [str(config[key]) for key in ("dataset_path", "dataset_name") if config.get(key)]
    return f" ({', '.join(parts)})" if parts else ""


def _require_fit(task: Any) -> None:
    name = task.task_name
    if getattr(task, "UNSAFE_CODE", False):
        _require_safe(name, {"unsafe_code": True})
    if getattr(task, "MULTIMODAL", False):
        raise _Unfit(f"Benchmark {name} shows pictures or plays sounds, which no policy here reads. Leave it out.")
