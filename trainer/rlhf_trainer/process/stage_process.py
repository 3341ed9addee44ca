"""The process of one stage, from its configuration to its result and its exit code."""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from rlhf_api.conventions.log_names import KEEP_LOG, LogName
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import RunRef, StageConfig, StageResult
from rlhf_api.words import STAGE_ARTIFACT, StageExit, StageName
from rlhf_store import StoreError, open_store, write_pointer
from rlhf_trainer.runtime import processes
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem, Preempted, StageError
from rlhf_trainer.runtime.failures import from_exception
from rlhf_trainer.runtime.logs import log, log_to_stderr, say_now
from rlhf_trainer.runtime.progress import Progress
from rlhf_trainer.runtime.result import write_result
from rlhf_trainer.tracking.following import tell_result
from rlhf_trainer.tracking.trackers import not_installed

from .log_keeper import keep_log
from .scratch import Scratch


def main(argv: list[str] | None = None) -> int:
    """Runs the stage; the exit code is rlhf_api.words.StageExit."""
    arguments = _arguments(argv)
    log_to_stderr()
    faulthandler.enable()
    end = _End(StageName(arguments.stage), Path(os.environ.get("RLHF_RESULT", "/dev/termination-log")), Scratch())
    try:
        _stop_on_sigterm(end)
        result = _run(_read_config(arguments.config, end.stage), end.scratch)
        # It is done: a SIGTERM that comes now must not put "stopped" in the place of what was sealed.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        write_result(result, end.result)
    except (StageError, StoreError) as error:
        return end.fail(from_exception(error))
    except SystemExit as ended:
        # Of code that is not ours: a model's own, a library's. Nobody may end a stage but by what it raises.
        traceback.print_exc()
        return end.fail(ApplicationProblem(f"Something that this stage imports ended it: exit({ended.code!r})."))
    except Exception as error:
        traceback.print_exc()
        return end.fail(from_exception(error))
    finally:
        # On a volume that outlives the pod it would stay.
        end.scratch.clear()
    log.info("%s is done%s", end.stage, f": {result.artifact.kind}/{result.artifact.fingerprint[:12]}" if result.artifact else "")
    return StageExit.DONE


def _run(config: StageConfig, scratch: Scratch) -> StageResult:
    shard = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    context = StageContext(config, open_store(config.storage), scratch.make(), shard, Progress.from_environment(log.info))
    if config.stage in STAGE_ARTIFACT:
        for tracker in not_installed(os.environ):
            log.warning("%s", tracker.not_installed)
    result = context.found() if config.stage in STAGE_ARTIFACT else None
    if result is None:
        result = importlib.import_module(f"rlhf_trainer.stages.{config.stage}").run(context)
    if result.artifact is not None:
        write_pointer(context.store, config.run, config.iteration, result.stage, result)
        tell_result(config, result, context.scratch, os.environ)
    return result


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rlhf_trainer", description="Run one stage of an RLHFRun.")
    parser.add_argument("stage", choices=[str(stage) for stage in StageName])
    parser.add_argument("--config", type=Path, default=Path("/etc/rlhf/stage.yaml"), help="StageConfig, YAML or JSON")
    return parser.parse_args(argv)


def _read_config(path: Path, stage: StageName) -> StageConfig:
    try:
        text = path.read_text()
        raw = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
        config = StageConfig.model_validate(raw)
    except FileNotFoundError as error:
        raise ConfigurationProblem(f"There is no stage configuration at {path}. Name it with --config.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationProblem(f"{path} is no StageConfig of this version: {place or 'it'}: {first['msg']}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationProblem(f"{path} is neither YAML nor JSON: {str(error).splitlines()[0]}") from error
    if config.stage is not stage:
        raise ConfigurationProblem(f"{path} configures {config.stage}, and the command line asks for {stage}.")
    return config


@dataclass(frozen=True)
class _End:
    """What is told of a stage that fails, and where."""

    stage: StageName
    result: Path
    scratch: Scratch

    def fail(self, error: StageError) -> int:
        """Nothing that comes later takes it back."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        unwritable = self.tell(error)
        log.error("%s failed (%s): %s", self.stage, error.reason, error)
        if unwritable is not None:
            log.error("The result cannot be written to %s: %s", self.result, unwritable)
        return int(error.exit)

    def tell(self, error: StageError) -> OSError | None:
        """In the result. What stood in the way of that, where something did."""
        result = StageResult(stage=self.stage, problem=_short(str(error)), reason=error.reason)
        try:
            try:
                write_result(result, self.result)
            except OSError:
                # The disk may be full, of what this stage itself wrote and nobody needs any more.
                self.scratch.clear()
                write_result(result, self.result)
        except OSError as unwritable:
            return unwritable
        return None


def _stop_on_sigterm(end: _End) -> None:
    """Until a stage says otherwise, SIGTERM ends it where it stands: what is not sealed is as if it had never been.

    Not by an exception: whatever code it interrupts might catch it and tell of something else.
    """

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stopped = Preempted("Stopped by SIGTERM.")
        end.tell(stopped)
        end.scratch.clear()
        say_now(f"{end.stage} failed ({stopped.reason}): {stopped}")
        os._exit(int(stopped.exit))

    signal.signal(signal.SIGTERM, stop)
    # It waited for this since the process began (__main__).
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _short(text: str, limit: int = 2000) -> str:
    """What a status has room for."""
    return text if len(text) <= limit else f"{text[: limit - 30]} … (the log has the rest)"


def _keep_log() -> None:
    """Where the pod's log is to be kept in the store; in what cannot be read nothing says where, and main() says what is wrong."""
    try:
        found = _where_log_is_kept()
    except Exception:
        return
    # Not in there: what happens to the keeper must not make it go on as the stage.
    if found is not None:
        keep_log(*found)


def _where_log_is_kept() -> tuple[Storage, RunRef, LogName] | None:
    name = LogName.parse(os.environ.pop(KEEP_LOG, ""))
    if name is None:
        return None
    arguments = _arguments(None)
    config = _read_config(arguments.config, StageName(arguments.stage))
    index = os.environ.get("JOB_COMPLETION_INDEX")
    if index is not None:
        name = LogName.parse(f"{name}-{index}") or name
    return config.storage, config.run, name


def run_and_exit() -> None:
    """The whole life of a process that is nothing but a stage."""
    _keep_log()
    code = processes.exit_code_of(main)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # vLLM and DeepSpeed leave threads behind that would hold the process. And a log that is full changes no result.
        os._exit(code)
