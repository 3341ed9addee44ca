"""How a stage process begins and ends: its configuration, its one result, its exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.conventions.log_names import LogName
from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import LabelWork, ResolveWork, StageConfig, StageResult
from rlhf_api.words import ArtifactKind, StageExit, StageName
from rlhf_store import ArtifactWriter, Unavailable, find_artifact, kept_logs, open_store
from rlhf_trainer.data.parquet import SAMPLES
from rlhf_trainer.process import stage_process as entry
from rlhf_trainer.runtime.context import work_of
from support.stages import RUN, config_of, context_of, ended, run_stage, start_stage, write_config
from support.waiting import wait_until


def run_main(
    config: StageConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str | None = None
) -> tuple[int, StageResult]:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("RLHF_RESULT", str(folder / "result.json"))
    monkeypatch.setenv("RLHF_SCRATCH", str(folder / "scratch"))
    try:
        code = entry.main([stage or config.stage.value, "--config", str(write_config(config, folder))])
    finally:
        signal.signal(signal.SIGTERM, before)
    return code, StageResult.model_validate_json((folder / "result.json").read_bytes())


def resolve(kind: ArtifactKind = ArtifactKind.SAMPLES) -> ResolveWork:
    return ResolveWork(target=StageName.SAMPLE, kind=kind)


def test_resolve_answers_for_its_target_found_or_not(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(resolve(), storage)
    code, result = run_main(config, tmp_path, monkeypatch)
    assert (code, result.stage, result.artifact, result.found) == (StageExit.DONE, StageName.SAMPLE, None, False)
    writer = ArtifactWriter(open_store(storage), ArtifactKind.SAMPLES, config.fingerprint)
    writer.add_bytes(b"rows", "samples.parquet")
    metrics = {Metric.YIELD: MetricValue(value=0.5)}
    sealed = writer.seal(stage=StageName.SAMPLE, metrics=metrics, counts={"prompts": 3})
    code, result = run_main(config, tmp_path, monkeypatch)
    assert (code, result.artifact, result.found) == (StageExit.DONE, sealed.ref, True)
    assert (result.metrics, result.counts) == (metrics, {"prompts": 3})


def in_process(code: str, config: StageConfig, folder: Path) -> int:
    """The exit code of a few lines of Python in the place of a stage; its arguments are those of the stage."""
    environment = {**os.environ, "RLHF_RESULT": str(folder / "result.json"), "RLHF_SCRATCH": str(folder / "scratch")}
    command = [sys.executable, "-c", textwrap.dedent(code), config.stage.value, "--config", str(write_config(config, folder))]
    return subprocess.run(command, env=environment, check=False, timeout=120).returncode


def test_sigterm_after_the_work_does_not_unsay_it(storage: Storage, tmp_path: Path) -> None:
    """It comes as the result is about to be written: the artifact is sealed, and the stage has not ended yet."""
    interrupted = """
        import os, signal, sys
        import rlhf_trainer.process.stage_process as entry
        write = entry.write_result
        def told_to_stop(result, path):
            os.kill(os.getpid(), signal.SIGTERM)
            write(result, path)
        entry.write_result = told_to_stop
        sys.exit(entry.main(sys.argv[1:]))
    """
    assert in_process(interrupted, config_of(resolve(), storage), tmp_path) == StageExit.DONE
    assert StageResult.model_validate_json((tmp_path / "result.json").read_bytes()).problem is None


def test_a_configuration_of_another_stage_is_refused(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, result = run_main(config_of(resolve(), storage), tmp_path, monkeypatch, stage="sample")
    assert code == StageExit.CONFIGURATION
    assert "configures resolve" in (result.problem or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "There is no stage configuration"),
        ("run: {", "neither YAML nor JSON"),
        ('{"run": {}}', "run.namespace: Field required"),
        ("[]", "Input should be"),
    ],
)
def test_an_unreadable_configuration_names_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("RLHF_RESULT", str(tmp_path / "result.json"))
    if text is not None:
        (tmp_path / "stage.yaml").write_text(text)
    try:
        code = entry.main(["resolve", "--config", str(tmp_path / "stage.yaml")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == StageExit.CONFIGURATION
    assert said in (json.loads((tmp_path / "result.json").read_text())["problem"])


def test_the_log_of_a_stage_lies_under_its_name_and_index(storage: Storage, tmp_path: Path) -> None:
    config = config_of(resolve(), storage)
    process = start_stage(config, tmp_path, RLHF_KEEP_LOG="sample-1-2", JOB_COMPLETION_INDEX="3")
    assert process.wait() == StageExit.DONE
    store = open_store(storage)
    (log,) = kept_logs(store, RUN)
    assert log.name == LogName(StageName.SAMPLE, 1, 2, 3)
    assert store.get(log.key) == (tmp_path / "log-0").read_bytes()
    assert b"resolve is done" in store.get(log.key)


def blocks_sigterm(pid: int) -> bool:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("environment", [{}, {"RLHF_KEEP_LOG": "sample-1-2"}], ids=["alone", "with its log kept"])
def test_a_sigterm_that_comes_while_it_imports_stops_it(storage: Storage, tmp_path: Path, environment: dict[str, str]) -> None:
    """The kernel gives a container's first process no signal that it has no handler for: what is blocked until then is not lost."""
    process = start_stage(config_of(resolve(), storage), tmp_path, **environment)
    wait_until(lambda: blocks_sigterm(process.pid), "it waits with SIGTERM", every=0.001)
    process.terminate()
    result = ended(tmp_path, process.wait())
    assert (result.code, result.result and result.result.problem) == (StageExit.PREEMPTED, "Stopped by SIGTERM.")


def test_without_the_variable_nothing_is_kept(storage: Storage, tmp_path: Path) -> None:
    config = config_of(resolve(), storage)
    assert start_stage(config, tmp_path).wait() == StageExit.DONE
    assert kept_logs(open_store(storage), RUN) == []


def test_a_stage_whose_configuration_cannot_be_read_says_so_all_the_same(storage: Storage, tmp_path: Path) -> None:
    config = config_of(resolve(), storage)
    write_config(config, tmp_path)
    command = [sys.executable, "-m", "rlhf_trainer", "sample", "--config", str(tmp_path / "stage.json")]
    environment = {**os.environ, "RLHF_KEEP_LOG": "sample-1-2", "RLHF_RESULT": str(tmp_path / "result.json")}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == StageExit.CONFIGURATION
    assert b"configures resolve" in done.stderr
    assert StageResult.model_validate_json((tmp_path / "result.json").read_bytes()).reason == "ConfigurationError"
    assert kept_logs(open_store(storage), RUN) == []


def label_of_samples(
    storage: Storage, folder: Path, rows: int = 0, rule: str = "rlhf_trainer.quickstart.task:grade"
) -> StageConfig:
    """A label stage on sealed samples of one prompt."""
    file = folder / "samples.parquet"
    row = {"prompt_id": "a", "prompt_ids": [1], "messages": [], "completion_ids": [2], "text": "x", "finish_reason": "stop"}
    samples = [{**row, "completion_index": index} for index in range(rows)]
    pq.write_table(pa.Table.from_pylist(samples, schema=SAMPLES), file)
    writer = ArtifactWriter(open_store(storage), ArtifactKind.SAMPLES, "a" * 64)
    writer.add_file(file, file.name)
    ref = writer.seal(stage=StageName.SAMPLE).ref
    labeler = {"type": "Rule", "rule": {"entryPoint": rule}}
    work = LabelWork.model_validate({"samples": ref, "labeler": labeler, "label": {}, "completionsPerPrompt": max(1, rows)})
    return config_of(work, storage)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"X"), "SHA-256"),
        (lambda path: path.write_bytes(path.read_bytes()[:20]), "20"),
    ],
)
def test_a_damaged_input_artifact_is_named_and_computes_nothing(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, said: str
) -> None:
    config = label_of_samples(storage, tmp_path)
    (path,) = Path(storage.url.removeprefix("file://")).rglob("samples.parquet")
    damage(path)
    code, result = run_main(config, tmp_path / "stage", monkeypatch)
    assert code == StageExit.APPLICATION
    assert result.artifact is None
    assert "samples.parquet" in (result.problem or "")
    assert said in (result.problem or "")


@pytest.mark.engine
def test_sigterm_is_never_taken_for_an_error_of_the_code_that_it_interrupts(storage: Storage, tmp_path: Path) -> None:
    """A rule's exceptions are caught and told as the rule's; a signal that arrives in it is none of them."""
    (tmp_path / "stopping.py").write_text(
        "import os, signal\n\n\ndef score(messages, response):\n    os.kill(os.getpid(), signal.SIGTERM)\n    return 1.0\n"
    )
    config = label_of_samples(storage, tmp_path, rows=2, rule="stopping:score")
    outcome = run_stage(config, tmp_path / "stage", PYTHONPATH=str(tmp_path))
    assert outcome.result is not None
    assert (outcome.code, outcome.result.reason) == (StageExit.PREEMPTED, "Preempted")


def test_an_input_artifact_that_is_gone_is_named(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = label_of_samples(storage, tmp_path)
    open_store(storage).delete(["samples/" + "a" * 64 + "/manifest.json"])
    code, result = run_main(config, tmp_path / "stage", monkeypatch)
    assert code == StageExit.CONFIGURATION
    assert "there is no sealed artifact" in (result.problem or "")


def test_an_input_artifact_that_lost_a_file_is_made_again_by_what_is_advised(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its manifest is there it would be found again as whole; so no other attempt is made, and the folder is to go."""
    config = label_of_samples(storage, tmp_path)
    store = Path(storage.url.removeprefix("file://"))
    (file,) = store.rglob("samples.parquet")
    file.unlink()
    code, result = run_main(config, tmp_path / "stage", monkeypatch)
    assert code == StageExit.CONFIGURATION
    expected = r"/samples\.parquet: this file of the sealed artifact (\S+) is gone.* Remove the folder file://(\S+)"
    said = re.search(expected, result.problem or "")
    assert said is not None, result.problem
    assert said[1] == f"samples/{'a' * 64}"
    shutil.rmtree(said[2])
    assert find_artifact(open_store(storage), ArtifactKind.SAMPLES, "a" * 64) is None
    label_of_samples(storage, tmp_path)
    # Of no prompts there are no labels.
    assert "Only 0.0% of the prompts" in (run_main(config, tmp_path / "again", monkeypatch)[1].problem or "")


def test_a_store_that_is_away_is_transient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise Unavailable("it does not answer", "s3://bucket")

    monkeypatch.setattr(entry, "open_store", away)
    code, result = run_main(config_of(resolve(), Storage(url="s3://bucket/x")), tmp_path, monkeypatch)
    assert (code, result.reason) == (StageExit.TRANSIENT, "StoreUnavailable")


def test_a_bug_of_ours_is_an_application_error_whose_trace_is_in_the_log(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rlhf_trainer.stages.resolve.run", lambda context: 1 / 0)
    code, result = run_main(config_of(resolve(), storage), tmp_path, monkeypatch)
    assert (code, result.reason) == (StageExit.APPLICATION, "ApplicationError")
    assert result.problem == "ZeroDivisionError: division by zero. The log has the trace."
    assert "Traceback" in capfd.readouterr().err


def test_nothing_that_a_stage_imports_can_end_it_without_a_word(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's own code, a library that calls exit(): a result that nobody wrote would be looked for in the store."""
    monkeypatch.setattr("rlhf_trainer.stages.resolve.run", lambda context: sys.exit("please install flash-attn"))
    code, result = run_main(config_of(resolve(), storage), tmp_path, monkeypatch)
    assert (code, result.reason) == (StageExit.APPLICATION, "ApplicationError")
    assert "please install flash-attn" in (result.problem or "")


def test_a_stage_leaves_nothing_in_its_scratch_and_takes_nothing_else_away(storage: Storage, tmp_path: Path) -> None:
    """The volume may be one that lives on, and that another pod is working on."""
    theirs = tmp_path / "scratch-0" / "theirs"
    theirs.mkdir(parents=True)
    assert run_stage(config_of(resolve(), storage), tmp_path).code == StageExit.DONE
    assert list((tmp_path / "scratch-0").iterdir()) == [theirs]


def test_a_stage_that_is_stopped_leaves_nothing_in_its_scratch(storage: Storage, tmp_path: Path) -> None:
    stopped = """
        import os, signal, sys
        import rlhf_trainer.process.stage_process as entry
        import rlhf_trainer.stages.resolve as stage
        def work(context):
            (context.scratch / "inputs").write_bytes(bytes(1000))
            os.kill(os.getpid(), signal.SIGTERM)
        stage.run = work
        sys.exit(entry.main(sys.argv[1:]))
    """
    assert in_process(stopped, config_of(resolve(), storage), tmp_path) == StageExit.PREEMPTED
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("words", ["entry.write_result", "entry.Scratch.clear"])
def test_a_failure_that_was_told_is_not_untold_by_a_sigterm(storage: Storage, tmp_path: Path, words: str) -> None:
    """A configuration that is refused must not be tried again as if the node had gone."""
    refused = f"""
        import os, signal, sys
        import rlhf_trainer.process.stage_process as entry
        before = {words}
        def told_to_stop(*given):
            done = before(*given)
            os.kill(os.getpid(), signal.SIGTERM)
            return done
        {words} = told_to_stop
        sys.exit(entry.main(["sample", *sys.argv[2:]]))
    """
    assert in_process(refused, config_of(resolve(), storage), tmp_path) == StageExit.CONFIGURATION
    result = StageResult.model_validate_json((tmp_path / "result.json").read_bytes())
    assert result.reason == "ConfigurationError"


def test_a_stage_whose_log_is_full_is_stopped_all_the_same(storage: Storage, tmp_path: Path) -> None:
    """Nobody reads it any more, and a write would wait for ever."""
    stopped = """
        import os, signal, sys
        import rlhf_trainer.process.stage_process as entry
        import rlhf_trainer.stages.resolve as stage
        def work(context):
            read_end, write_end = os.pipe()
            os.dup2(write_end, 2)
            os.set_blocking(2, False)
            try:
                while True: os.write(2, bytes(4096))
            except BlockingIOError:
                os.set_blocking(2, True)
            os.kill(os.getpid(), signal.SIGTERM)
        stage.run = work
        sys.exit(entry.main(sys.argv[1:]))
    """
    assert in_process(stopped, config_of(resolve(), storage), tmp_path) == StageExit.PREEMPTED
    assert StageResult.model_validate_json((tmp_path / "result.json").read_bytes()).problem == "Stopped by SIGTERM."


@pytest.mark.parametrize("environment", [{"JOB_COMPLETION_INDEX": "nonsense"}, {"RLHF_KEEP_LOG": f"sample-1-{'9' * 5000}"}])
def test_where_a_log_is_kept_nonsense_still_ends_in_a_result(storage: Storage, tmp_path: Path, environment: dict[str, str]) -> None:
    done = run_stage(config_of(resolve(), storage), tmp_path, **{"RLHF_KEEP_LOG": "sample-1-2", **environment})
    assert done.result is not None


def test_a_stage_refuses_the_work_of_another(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="holds ResolveWork"):
        work_of(context_of(config_of(resolve(), storage), tmp_path), LabelWork)
