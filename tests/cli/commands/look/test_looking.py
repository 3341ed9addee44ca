"""status, list, logs, wait: what a person and a script see of a run."""

from __future__ import annotations

import io
import json
import os
import shlex
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from rlhf_api import RLHFRun
from rlhf_api.words import StageName
from rlhfctl.commands.look.logs import STAGES
from rlhfctl.display import terminal, views
from rlhfctl.exits import Exit
from rlhfctl.sources.local import resuming
from support import example_runs
from support.rlhfctl import assert_screen, process, rlhfctl

STORE = "file:///state/store"
NOW = example_runs.START + timedelta(seconds=700)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    makers = {
        "quickstart": example_runs.finished,
        "working": example_runs.at_work,
        "broken": example_runs.failed,
        "waiting": example_runs.paused,
    }
    for name, make in makers.items():
        example_runs.save(folder, make(name, STORE))
    logs = folder / "runs" / "quickstart" / "logs"
    (logs / "sft-0-1.log").write_text("step 1\nstep 2\n")
    (logs / "train-2-1.log").write_text("loss 0.69\n")
    return folder


def _plain() -> terminal.Terminal:
    return terminal.Terminal(io.StringIO(), is_tty=False, colour=False, unicode=True, width=80)


@pytest.mark.parametrize("name", ["finished", "at_work", "failed", "paused"])
def test_status_fits_80_columns_and_stays_as_it_is(name: str) -> None:
    run = getattr(example_runs, name)("quickstart", STORE)
    assert_screen(f"status-{name}.txt", "\n".join(views.run_lines(run, _plain(), NOW)) + "\n")


def test_wide_status_stays_as_it_is() -> None:
    run = example_runs.finished("quickstart", STORE)
    assert_screen("wide-status.txt", "\n".join(views.stage_table(run, _plain(), NOW)) + "\n")


def test_list_fits_80_columns_and_stays_as_it_is() -> None:
    runs = [
        example_runs.finished("quickstart", STORE),
        example_runs.at_work("a-longer-name", STORE),
        example_runs.failed("x", STORE),
    ]
    assert_screen("list.txt", "\n".join(views.list_table(runs, _plain(), NOW, wide=False)) + "\n")


def test_colour_always_comes_with_the_same_words() -> None:
    run = example_runs.failed("quickstart", STORE)
    painted = terminal.Terminal(io.StringIO(), is_tty=True, colour=True, unicode=True, width=80)
    plain = "\n".join(views.run_lines(run, _plain(), NOW))
    coloured = "\n".join(views.run_lines(run, painted, NOW))
    assert "\x1b[" in coloured
    assert views.unpainted(coloured) == plain


def test_status_of_a_finished_run_in_a_process_of_its_own(state: Path) -> None:
    done = process("status", "quickstart", "--state", str(state))
    assert (done.code, done.err) == (0, "")
    assert "quickstart  ✓ Succeeded  3 of 3 iterations" in done.out
    assert "\x1b[" not in done.out


def test_an_ascii_stream_gets_ascii(state: Path) -> None:
    done = process("status", "quickstart", "--state", str(state), env={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0
    assert done.out.isascii()


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_status_prints_the_whole_object(state: Path, output: str, load: object) -> None:
    done = rlhfctl("status", "quickstart", "--state", str(state), "-o", output)
    run = RLHFRun.model_validate(load(done.out))  # type: ignore[operator]
    assert run == example_runs.finished("quickstart", STORE)


def test_list_prints_a_list_that_kubectl_users_know(state: Path) -> None:
    done = rlhfctl("list", "--state", str(state), "-o", "json")
    document = json.loads(done.out)
    assert (document["apiVersion"], document["kind"], len(document["items"])) == ("v1", "List", 4)
    names = rlhfctl("list", "--state", str(state), "-o", "name")
    assert names.out.splitlines()[0] == "rlhfrun.rlhf.dev/broken"


def test_a_damaged_run_hides_no_other_in_a_list(state: Path) -> None:
    (state / "runs" / "broken" / "run.yaml").write_text("{")
    (state / "runs" / "waiting" / "status.json").write_text("[]")
    done = rlhfctl("list", "--state", str(state), "-o", "name")
    assert (done.code, done.out.splitlines()) == (0, ["rlhfrun.rlhf.dev/quickstart", "rlhfrun.rlhf.dev/working"])
    left_out = done.err.splitlines()
    assert [line.split(": ")[0] for line in left_out] == ["left out", "left out"]
    assert "broken/run.yaml" in left_out[0]
    assert "put the manifest back" in left_out[0]
    assert "runs/waiting" in left_out[1]


@pytest.fixture
def newer(state: Path) -> dict[str, object]:
    """The status of run `waiting`, as a newer version left it."""
    path = state / "runs" / "waiting" / "status.json"
    status: dict[str, object] = json.loads(path.read_text()) | {"phase": "Preparing", "stage": "prepare", "message": "Warming up."}
    path.write_text(json.dumps(status))
    return status


def test_a_run_of_a_newer_version_has_a_row_in_its_own_words(state: Path, newer: dict[str, object]) -> None:
    done = rlhfctl("list", "--state", str(state))
    *others, row = done.out.splitlines()[1:]
    assert [line.split()[0] for line in others] == ["broken", "quickstart", "working"]
    assert row.split()[:5] == ["waiting", "?", "Preparing", f"{newer['iteration']}/3", "prepare"]
    assert (done.code, done.err.startswith("not understood: run 'waiting' in ")) == (0, True)
    assert "status.phase is 'Preparing' (and 1 more), which this version (" in done.err
    items = json.loads(rlhfctl("list", "--state", str(state), "-o", "json").out)["items"]
    assert items[-1]["status"] == newer
    assert "rlhfrun.rlhf.dev/waiting" in rlhfctl("list", "--state", str(state), "-o", "name").out
    wide = rlhfctl("list", "--state", str(state), "-o", "wide").out.splitlines()[-1]
    assert "which this version" in wide


def test_status_of_a_run_of_a_newer_version_says_its_words_and_what_to_do(state: Path, newer: dict[str, object]) -> None:
    done = rlhfctl("status", "waiting", "--state", str(state))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"waiting  ? Preparing  iteration {newer['iteration']}, prepare\n  Warming up.\n")
    assert "status.phase is 'Preparing'" in done.out.replace("\n", " ")
    assert "or a newer one" in done.out
    assert json.loads(rlhfctl("status", "waiting", "--state", str(state), "-o", "json").out)["status"] == newer


def test_what_would_change_a_run_of_a_newer_version_is_refused_and_changes_nothing(state: Path, newer: dict[str, object]) -> None:
    for words in (["suspend", "waiting"], ["cancel", "waiting"], ["status", "waiting", "--watch"]):
        done = rlhfctl(*words, "--state", str(state))
        assert (done.code, "written by another version" in done.err) == (Exit.RUN_FAILED, True), (words, done.err)
    assert json.loads((state / "runs" / "waiting" / "status.json").read_text()) == newer


@pytest.mark.usefixtures("newer")
def test_a_run_of_a_newer_version_can_be_deleted(state: Path) -> None:
    done = rlhfctl("delete", "waiting", "--yes", "--state", str(state))
    assert (done.code, "run 'waiting' is deleted" in done.err) == (0, True)
    assert not (state / "runs" / "waiting").exists()


def test_list_of_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    done = rlhfctl("list", "--state", str(tmp_path))
    assert (done.code, done.out) == (0, "")
    assert "no runs" in done.err


def test_the_state_folder_comes_from_the_environment_or_is_dot_rlhf(state: Path, tmp_path: Path) -> None:
    assert "quickstart" in rlhfctl("list", "--local", env={"RLHF_STATE": str(state)}).out
    state.rename(tmp_path / ".rlhf")
    assert "quickstart" in rlhfctl("list", "--local", cwd=tmp_path).out


@pytest.mark.parametrize(
    "command", [("status", "x"), ("list",), ("logs", "x"), ("wait", "x"), ("report", "x"), ("suspend", "x"), ("events", "x")]
)
def test_without_local_and_without_a_kubeconfig_it_says_what_to_do(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = rlhfctl(*command, env={"HOME": str(tmp_path), "KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": "", "RLHF_STATE": "/nowhere"})
    assert done.code == Exit.NO_CONNECTION
    assert "no cluster is configured" in done.err
    assert f"looked at {tmp_path}/.kube/config" in " ".join(done.err.split())
    assert "set KUBECONFIG" in done.err
    assert "for runs on this machine add --local" in done.err


def test_a_manifest_runs_here_only_when_that_is_asked_for() -> None:
    done = rlhfctl("run", "f.yaml", env={"RLHF_STATE": "/nowhere"})
    assert done.code == Exit.USAGE
    assert "--local" in done.err
    assert "rlhfctl submit FILE" in done.err


@pytest.mark.parametrize("options", [("-n", "research"), ("--context", "x"), ("--kubeconfig", "x")])
def test_a_command_is_of_a_cluster_or_of_this_machine(state: Path, options: tuple[str, str]) -> None:
    done = rlhfctl("list", "--state", str(state), *options)
    assert done.code == Exit.USAGE
    assert f"{options[0]} selects a cluster" in done.err


@pytest.mark.parametrize("command", ["status", "logs", "wait", "report"])
def test_an_unknown_run_is_not_found_and_the_nearest_is_named(state: Path, command: str) -> None:
    done = rlhfctl(command, "quikstart", "--state", str(state))
    assert done.code == Exit.NOT_FOUND
    assert "there is no run 'quikstart'" in done.err
    assert "did you mean 'quickstart'?" in done.err


def test_wait_mirrors_the_runs_result(state: Path) -> None:
    codes = {name: rlhfctl("wait", name, "--state", str(state)).code for name in ("quickstart", "broken", "waiting")}
    assert codes == {"quickstart": 0, "broken": 1, "waiting": 1}


def test_wait_for_a_run_that_nobody_drives_says_how_to_resume(state: Path) -> None:
    done = rlhfctl("wait", "working", "--state", str(state))
    assert done.code == Exit.RUN_FAILED
    assert "no process drives it" in done.err
    assert f"rlhfctl run --state {state} FILE   resumes it" in " ".join(done.err.split()).replace("FILE ", "FILE   ", 1)


def test_wait_for_a_paused_run_says_how_to_approve(state: Path) -> None:
    done = rlhfctl("wait", "waiting", "--state", str(state))
    assert f"rlhfctl approve waiting --state {state}" in " ".join(done.err.split())


def test_logs_are_on_stdout_and_their_headings_on_stderr(state: Path) -> None:
    done = rlhfctl("logs", "quickstart", "--state", str(state))
    assert done.out == "step 1\nstep 2\nloss 0.69\n"
    assert "==> sft, attempt 1 <==" in done.err
    assert "==> train, iteration 2, attempt 1 <==" in done.err


def test_what_stands_among_logs_and_is_none_does_not_hide_them(state: Path) -> None:
    """A link that leads nowhere, a folder, a pipe that would be waited for."""
    logs = state / "runs" / "quickstart" / "logs"
    (logs / "sft-0-7.log").symlink_to("nowhere")
    (logs / "sft-0-8.log").mkdir()
    os.mkfifo(logs / "sft-0-9.log")
    assert rlhfctl("logs", "quickstart", "--state", str(state), "--stage", "sft").out == "step 1\nstep 2\n"


def test_a_log_is_shown_on_a_terminal_of_any_encoding(state: Path) -> None:
    (state / "runs" / "quickstart" / "logs" / "sft-0-1.log").write_bytes("Größe 1 → 2\n".encode())
    done = process("logs", "quickstart", "--state", str(state), "--stage", "sft", env={"PYTHONIOENCODING": "ascii"})
    assert (done.code, done.out) == (0, "Gr??e 1 > 2\n")


def test_logs_narrow_to_a_stage_and_an_iteration(state: Path) -> None:
    assert rlhfctl("logs", "quickstart", "--state", str(state), "--iteration", "2").out == "loss 0.69\n"
    assert rlhfctl("logs", "quickstart", "--state", str(state), "--stage", "sft").out == "step 1\nstep 2\n"
    assert rlhfctl("logs", "quickstart", "--state", str(state), "-f").code == 0
    none = rlhfctl("logs", "quickstart", "--state", str(state), "--stage", "label")
    assert none.code == Exit.NOT_FOUND
    assert "has no such log" in none.err


def test_no_traceback_reaches_the_user(state: Path) -> None:
    (state / "runs" / "quickstart" / "status.json").write_text("{half")
    done = rlhfctl("status", "quickstart", "--state", str(state))
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "status.json" in done.err


@pytest.mark.parametrize(("file", "cpu"), [("my runs/a.yaml", True), ("a.yaml", False), ("-", True)])
def test_the_command_that_resumes_a_run_can_be_typed_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, cpu: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    run = resuming.noted(example_runs.at_work("x", STORE), file, cpu=cpu)
    words = shlex.split(resuming.resume_command(run, tmp_path / "my state"))
    assert words == ["rlhfctl", "run", "--state", "my state", *(["--cpu"] if cpu else []), "FILE" if file == "-" else file]


def test_every_stage_that_has_logs_can_be_asked_for() -> None:
    assert tuple(stage.value for stage in StageName if stage is not StageName.RESOLVE) == STAGES
