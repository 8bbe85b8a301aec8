"""Secrets: what names them, what is shaped like one, and that the record's own words are never taken for one."""

import json
from pathlib import Path

import pytest

from coatnet_search.core.checks import Misplaced, storage_uri, tracking_uri
from coatnet_search.core.errors import InputError
from coatnet_search.core.redact import REDACTED, Redactor, has_login, is_secret_name
from coatnet_search.core.storage import Storage
from coatnet_search.record.fold import Record, read_trials

WITH_LOGIN = {
    "http://me:wo/rd@host:5000": "wo/rd",
    "http://me:wo?rd#x@host": "wo?rd",
    "http://me:wo@rd@host": "wo@rd",
    "http://me%3Aword9@host": "word9",
    "https://word9@host/x": "word9",
    "https://word9:@host": "word9",
    "postgresql://me:wo/rd@host/db": "wo/rd",
    "redis://:word9@host": "word9",
    "s3://KEY:wo/r+d@bucket/x": "wo/r+d",
    "s3://bucket/x?access_key=a&secret_key=word9": "word9",
    "s3://bucket/x?endpoint_override=http%3A%2F%2Fme%3Aword9%40host": "word9",
    "https://host/x?sv=1&sig=word9": "word9",
    "https://host/x?X-Amz-Signature=word9": "word9",
    "https://host/?token=word9": "word9",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dword9": "word9",
    "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=word9==;EndpointSuffix=y": "word9",
    "https://host/ASIAABCDEFGHIJKLMNOP": "ASIAABCDEFGHIJKLMNOP",
}
WITHOUT = (
    *("http://127.0.0.1:5000", "http://[::1]:5000/#/experiments/1", "https://host/a:b@c", "sqlite:///runs/a:b@c.db"),
    *("s3://bucket/images@2024/x", "s3://bucket?region=eu-west-1&scheme=http", "gs://anonymous@bucket/x"),
    *("postgresql://me@host/db", "abfss://container@account.dfs.core.windows.net/x", "databricks://profile"),
    *("file:///shared/x", "runs/mlflow.db"),
)
SECRET_NAMES = (
    *("MY_PASSWORD", "PGPASSWORD", "MYSQL_PWD", "SSHPASS", "DB_PASS", "AZURE_STORAGE_KEY", "OPENAI_KEY", "GITHUB_PAT"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "AccountKey", "apiKey", "X-Api-Key", "SENTRY_DSN"),
    *("AZURE_STORAGE_CONNECTION_STRING", "SLACK_WEBHOOK_URL", "PASSWORD2", "authorization", "sig"),
)
PLAIN_NAMES = ("key", "num_tokens", "sort_key", "PATH", "SSH_AUTH_SOCK", "XAUTHORITY", "compass", "signal", "state")


@pytest.mark.parametrize(("uri", "secret"), WITH_LOGIN.items())
def test_a_uri_with_a_login_is_refused_and_redacted_by_the_same_rule(uri: str, secret: str) -> None:
    refusals = []
    for check in (tracking_uri, storage_uri, Storage):
        with pytest.raises(InputError) as caught:
            check(uri)
        refusals.append(str(caught.value))

    text = Redactor().text(f"cannot reach {uri} just now")

    assert has_login(uri)
    assert secret not in text and "cannot reach" in text and "just now" in text
    assert not any(secret in refusal for refusal in refusals)


@pytest.mark.parametrize("uri", WITHOUT)
def test_a_uri_without_a_login_is_taken_and_left_as_it_is(uri: str) -> None:
    assert not has_login(uri)
    assert tracking_uri(uri) == uri
    assert Redactor().text(f"see {uri} there") == f"see {uri} there"


def test_blanks_and_quotes_do_not_hide_a_password() -> None:
    for uri in ("http://me:pass word@host", "http://me:pa'ss@host", 'http://me:pa"ss@host'):
        with pytest.raises(Misplaced):
            tracking_uri(uri)


def test_names_of_secrets_are_known_by_their_last_words() -> None:
    assert [name for name in SECRET_NAMES if not is_secret_name(name)] == []
    assert [name for name in PLAIN_NAMES if is_secret_name(name)] == []


def test_values_of_secret_variables_and_passwords_in_any_variable_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", 'quo"te-pä')
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:long/password@host/db")
    monkeypatch.setenv("STORE", "AccountName=x;AccountKey=0123456789==;")
    monkeypatch.setenv("PWD", "/home/me/work")
    redactor = Redactor.from_environment()

    text = redactor.text('quo"te-pä long/password 0123456789== /home/me/work')

    assert text == f"{REDACTED} {REDACTED} {REDACTED} /home/me/work"


def test_a_password_that_is_a_word_of_the_record_changes_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("terminal", "attention", "0123456789abcdef", "val_top1", "no_result", "C-C-T-T-long", "NVIDIA H200")
    for number, word in enumerate(words):
        monkeypatch.setenv(f"N{number}_PASSWORD", word)
    whole = {"number": 0, "key": "0123456789abcdef"}
    started = {
        **whole, "event": "started", "candidate": {"stages.1.block": "attention"}, "layout": "C-C-T-T-long",
        "arch_id": "0123456789abcdef", "metrics": {"macs": 12345678}, "origin": "attention",
        "attributes": {"layout": "C-C-T-T-long", "note": "attention"},
    }  # fmt: skip
    ended = {
        **whole, "event": "terminal", "state": "failed", "metrics": {"val_top1": 0.5}, "device": "NVIDIA H200",
        "failure": {"kind": "no_result", "message": "attention was given", "traceback": None},
    }  # fmt: skip

    with Record(tmp_path) as record:
        record.append(started)
        record.append(ended)
    first, last = (json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines())
    (trial,) = read_trials(tmp_path)

    assert {name: first[name] for name in started if name != "attributes"} == {
        name: value for name, value in started.items() if name != "attributes"
    }
    assert first["attributes"] == {"layout": "C-C-T-T-long", "note": REDACTED}
    assert (last["event"], last["state"], last["device"]) == ("terminal", "failed", "NVIDIA H200")
    assert last["failure"] == {"kind": "no_result", "message": f"{REDACTED} was given", "traceback": None}
    assert (trial.state, trial.failure.kind if trial.failure else None) == ("failed", "no_result")


@pytest.mark.timeout(60)
def test_texts_that_are_meant_to_take_long_do_not() -> None:
    texts = ("a://b:" * 20_000, "a.a." * 40_000, "%41" * 60_000, "a@" * 60_000, "a=b=" * 40_000, "eyJ" * 60_000)

    assert [Redactor().text(text) == text for text in texts] == [True] * len(texts)
