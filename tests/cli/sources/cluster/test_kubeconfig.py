"""Which cluster a command means: the rules of kubectl. tests/cli/commands/test_cluster_errors.py asks kubectl itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhfctl.errors import CliError, NoConnection, UsageProblem
from rlhfctl.sources.cluster.kubeconfig import Target, resolve


def _write(path: Path, *contexts: str, current: str | None = None, namespace: str | None = None) -> Path:
    """A kubeconfig whose contexts lead to https://<context>.<file>."""
    entries: list[dict[str, Any]] = []
    for name in contexts:
        context = {"cluster": name, "user": name, **({"namespace": namespace} if namespace else {})}
        entries.append({"name": name, "context": context})
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "contexts": entries,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.{path.name}"}} for name in contexts],
        **({} if current is None else {"current-context": current}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def _resolve(
    home: Path, kubeconfig: Path | None = None, context: str | None = None, namespace: str | None = None, **env: str
) -> Target:
    return resolve(None if kubeconfig is None else str(kubeconfig), context, namespace, {"HOME": str(home), **env}, home / "pod")


def test_the_default_is_the_file_in_the_home_folder(home: Path) -> None:
    file = _write(home / ".kube" / "config", "one", "two", current="two", namespace="research")
    found = _resolve(home)
    assert found == Target((file,), "two", "https://two.config", "research")


def test_the_namespace_is_the_option_s_then_the_context_s_then_default(home: Path) -> None:
    _write(home / ".kube" / "config", "one", current="one")
    assert _resolve(home).namespace == "default"
    assert _resolve(home, namespace="mine").namespace == "mine"
    _write(home / ".kube" / "config", "one", current="one", namespace="theirs")
    assert (_resolve(home).namespace, _resolve(home, namespace="mine").namespace) == ("theirs", "mine")


def test_of_several_files_the_first_wins_for_the_current_context_and_for_each_name(home: Path, tmp_path: Path) -> None:
    first = _write(tmp_path / "first", "one", current="two")
    second = _write(tmp_path / "second", "one", "two", current="one")
    found = _resolve(home, KUBECONFIG=f"{first}:{tmp_path / 'absent'}::{second}")
    assert found == Target((first, second), "two", "https://two.second", "default")
    assert _resolve(home, context="one", KUBECONFIG=f"{first}:{second}").server == "https://one.first"


def test_an_empty_file_is_passed_over(home: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    full = _write(tmp_path / "full", "one", current="one")
    assert _resolve(home, KUBECONFIG=f"{empty}:{full}") == Target((full,), "one", "https://one.full", "default")


def test_kubeconfig_alone_counts_where_it_is_given(home: Path, tmp_path: Path) -> None:
    named = _write(tmp_path / "named", "one", current="one")
    other = _write(tmp_path / "other", "two", current="two")
    assert _resolve(home, named, KUBECONFIG=str(other)).files == (named,)


def test_a_kubeconfig_variable_hides_the_file_in_the_home_folder(home: Path) -> None:
    _write(home / ".kube" / "config", "one", current="one")
    with pytest.raises(NoConnection, match="no cluster is configured"):
        _resolve(home, KUBECONFIG="/absent")


def test_in_a_pod_its_service_account_counts_where_there_is_no_kubeconfig(home: Path) -> None:
    (home / "pod").mkdir(parents=True)
    (home / "pod" / "token").write_text("t")
    (home / "pod" / "namespace").write_text("team\n")
    env: dict[str, Any] = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert _resolve(home, **env) == Target((), None, "https://10.0.0.1:443", "team")
    assert _resolve(home, POD_NAMESPACE="other", **env).namespace == "other"
    file = _write(home / ".kube" / "config", "one", current="one")
    assert _resolve(home, **env).files == (file,)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"kubeconfig": Path("/absent")}, UsageProblem, "there is no kubeconfig /absent"),
        ({"context": "twoo"}, UsageProblem, "has no context 'twoo'"),
        ({"KUBECONFIG": "/absent"}, NoConnection, "no cluster is configured"),
    ],
)
def test_what_cannot_be_is_refused_in_words(home: Path, arguments: dict[str, Any], kind: type[CliError], said: str) -> None:
    _write(home / ".kube" / "config", "one", "two", current="one")
    with pytest.raises(kind, match=said):
        _resolve(home, **arguments)


def test_a_misspelt_context_names_the_nearest(home: Path) -> None:
    _write(home / ".kube" / "config", "one", "two", current="one")
    with pytest.raises(UsageProblem) as caught:
        _resolve(home, context="twoo")
    assert caught.value.hints == ("did you mean 'two'?",)


def test_without_a_current_context_it_names_those_there_are(home: Path) -> None:
    _write(home / ".kube" / "config", "one", "two")
    with pytest.raises(NoConnection, match="no context of the kubeconfig is the current one") as caught:
        _resolve(home)
    assert caught.value.why == "it has one, two"


@pytest.mark.parametrize("content", ["a: [", "- 1"])
def test_a_kubeconfig_that_is_none_is_named(home: Path, tmp_path: Path, content: str) -> None:
    file = tmp_path / "broken"
    file.write_text(content)
    with pytest.raises(NoConnection, match=str(file)):
        _resolve(home, file)
