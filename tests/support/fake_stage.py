"""A stage without work, that keeps the stage contract: exit codes, result, SIGTERM, shards, sealing. A test double of stages.

    python fake_stage.py STAGE --config FILE

Its store is the file:// folder of its configuration. `FAKE_STAGE` names a folder: each start is noted in `starts`, and what a start
does is read from `plans/<stage>-<iteration>[-<shard>]`, one plan a start, in order; without a plan it does its work and ends well.
It starts in a few hundredths of a second, for it imports nothing of ours, but for the plan in preflight.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAKE_STAGE"])
INDEX = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
#: Not an Event: a handler that sets one may come while this very thread holds its lock, and waits for itself for ever.
TERMINATED: list[int] = []
KINDS = {
    "sft": "policy",
    "reward": "reward-model",
    "judge": "reward-model",
    "sample": "samples",
    "ask": "questions",
    "label": "labels",
    "reference": "reference-logps",
    "train": "policy",
    "evaluate": "evaluation",
    "benchmark": "benchmark",
}
Json = dict[str, Any]


def main() -> int:
    stage, _, file = sys.argv[1:]
    config = json.loads(Path(file).read_text())
    assert stage == config["work"]["stage"], f"told to run {stage} with the configuration of {config['work']['stage']}"
    signal.signal(signal.SIGTERM, lambda number, _: TERMINATED.append(number))
    plan = next_plan(config)
    note("starts", f"{label(config)} {attempt(config)} {INDEX} {os.getpid()}")
    print(f"fake {label(config)} attempt {attempt(config)}", flush=True)
    match plan:
        case ["exit", code]:
            return fail(config, int(code), f"It was planned to fail with {code}.")
        case ["silent", code]:
            return int(code)
        case ["die", number]:
            os.kill(os.getpid(), int(number))
        case ["seal-and-die"]:
            work(config)
            os.kill(os.getpid(), signal.SIGKILL)
        case ["no-result"]:
            work(config)
            return 0
        case ["hang", *with_child]:
            if with_child:
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
                note("children", str(child.pid))
            note("hanging", str(os.getpid()))
            # A signal handler runs only between two waits of the main thread.
            while not TERMINATED:
                time.sleep(0.02)
            return fail(config, 143, "It was told to stop, and wrote a checkpoint.")
        case ["ignore-sigterm"]:
            note("hanging", str(os.getpid()))
            while True:
                time.sleep(600)
        case ["environment"]:
            (FOLDER / f"environment-{INDEX}").write_text(json.dumps(dict(os.environ)))
            # The node that seals first ends the attempt, and with it the others.
            for node in range(int(os.environ.get("PET_NNODES", "0"))):
                wait_for(FOLDER / f"environment-{node}")
        case ["progress", done, total]:
            beside = Path(os.environ["RLHF_PROGRESS"] + ".new")
            beside.write_text(json.dumps({"done": int(done), "total": int(total), "unit": "steps", "detail": "loss 0.5"}))
            beside.replace(os.environ["RLHF_PROGRESS"])
            note("hanging", str(os.getpid()))
            wait_for(FOLDER / "go-on")
    speak(work(config))
    return 0


def attempt(config: Json) -> int:
    return int(config["execution"]["attempt"])


def target(config: Json) -> str:
    return str(config["work"].get("target", config["work"]["stage"]))


def resolving(config: Json) -> bool:
    return "target" in config["work"]


def label(config: Json) -> str:
    return f"{'resolve:' if resolving(config) else ''}{target(config)}-{config.get('iteration', 0)}"


def next_plan(config: Json) -> list[str]:
    for name in (f"{label(config)}-{INDEX}", label(config)):
        path = FOLDER / "plans" / name
        lines = path.read_text().splitlines() if path.exists() else []
        if lines:
            path.write_text("".join(f"{line}\n" for line in lines[1:]))
            return lines[0].split()
    return []


def note(name: str, line: str) -> None:
    with (FOLDER / name).open("a") as file:
        file.write(line + "\n")


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def fail(config: Json, code: int, problem: str) -> int:
    speak({"stage": config["work"]["stage"], "attempt": attempt(config), "problem": problem})
    return code


def speak(result: Json) -> None:
    Path(os.environ["RLHF_RESULT"]).write_text(json.dumps(result))


def work(config: Json) -> Json:
    """Seal the artifact, by shards where there are several; look it up for resolve."""
    stage = target(config)
    result: Json = {"stage": stage, "attempt": attempt(config)}
    if stage not in KINDS:
        return result | {"adoptable": adoptable(config)}
    shards = int(config["execution"]["shards"])
    if shards > 1 and not resolving(config):
        parts = folder_of(config, stage) / f"parts-{shards}"
        parts.mkdir(parents=True, exist_ok=True)
        (parts / str(INDEX)).touch()
        if len(list(parts.iterdir())) < shards:
            return result | {"shard": INDEX}
    found = sealed(config, stage)
    if resolving(config) and found is None:
        return result
    artifact = found or seal(config)
    return result | {"artifact": artifact, "found": found is not None, "metrics": metrics_of(stage, config.get("iteration"))}


def folder_of(config: Json, stage: str) -> Path:
    storage = str(config["storage"]["url"]).removeprefix("file://")
    return Path(storage, KINDS[stage], str(config["fingerprint"]))


def seal(config: Json) -> Json:
    """Once, whoever comes first: `sealed` notes it."""
    stage = target(config)
    folder = folder_of(config, stage)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"manifest.{os.getpid()}"
    beside.write_text(json.dumps({"fingerprint": config["fingerprint"]}))
    with suppress(FileExistsError):
        os.link(beside, folder / "manifest.json")
        note("sealed", label(config))
    beside.unlink()
    reference = sealed(config, stage)
    assert reference is not None
    return reference


def sealed(config: Json, stage: str) -> Json | None:
    manifest = folder_of(config, stage) / "manifest.json"
    if not manifest.exists():
        return None
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return {"kind": KINDS[stage], "fingerprint": config["fingerprint"], "digest": digest}


def metrics_of(stage: str, iteration: int | None) -> Json:
    return {"winRateVsInitial": {"value": 0.5 + 0.1 * (iteration or 0)}} if stage == "evaluate" else {}


def adoptable(config: Json) -> int:
    """Of preflight: how many stages of the chain are sealed."""
    store = Path(config["storage"]["url"].removeprefix("file://"))
    if config["work"]["stage"] != "preflight" or not store.exists():
        return 0
    from rlhf_api.resource.run import RLHFRunSpec
    from rlhf_api.stage import RunRef, StageResult
    from rlhf_api.words import StageName
    from rlhf_operator.core.chain.history import History, StageRecord
    from rlhf_operator.core.plan.planner import Planner, RunStage

    planner = Planner(RunRef(**config["run"]), RLHFRunSpec.model_validate(config["work"]["spec"]))
    history = History((StageRecord(None, StageName.PREFLIGHT),))
    while isinstance(step := planner.next_step(history), RunStage) and step.config.stage.value in KINDS:
        stage = step.config.stage.value
        artifact = sealed(step.config.to_wire(), stage)
        if artifact is None:
            break
        result = {"stage": stage, "artifact": artifact, "metrics": metrics_of(stage, step.config.iteration)}
        history = history.with_result(step.config, StageResult.model_validate(result))
    return history.chain_length


if __name__ == "__main__":
    sys.exit(main())
