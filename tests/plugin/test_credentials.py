"""Where a password comes from, and where it never goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgan.errors import ConfigError
from plugin.credentials import site

SECRET = "planted-secret"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, without credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    return tmp_path


def test_a_password_is_taken_out_of_the_environment():
    environment = {"XNAT_HOST": "https://x.org/xnat/", "XNAT_USER": "jane", "XNAT_PASS": SECRET}
    found = site(environment)
    assert (found.host, found.user, found.password, found.verify) == ("https://x.org/xnat", "jane", SECRET, True)
    assert "XNAT_PASS" not in environment
    assert SECRET not in repr(found)


def test_a_password_of_netrc(home: Path):
    (home / ".netrc").write_text(f"machine x.org login jane password {SECRET}\nmachine y.org:8443 login joe password other\n")
    (home / ".netrc").chmod(0o600)
    assert site({"XNAT_HOST": "https://x.org"}).password == SECRET
    assert site({}, host="https://y.org:8443").user == "joe"
    assert site({"XNAT_USER": "jane"}, host="https://x.org").user == "jane"
    with pytest.raises(ConfigError, match="no user and password"):
        site({"XNAT_USER": "joe"}, host="https://x.org")


def test_a_password_that_is_asked_for():
    asked = []

    def ask(user: str) -> str:
        asked.append(user)
        return SECRET

    assert site({}, host="http://x", user="jane", ask=ask).password == SECRET
    assert asked == ["jane"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no XNAT site is named"),
        ({"XNAT_HOST": "https://x.org"}, "no user and password"),
        ({"XNAT_HOST": "https://x.org", "XNAT_USER": "jane"}, "no user and password"),
        ({"XNAT_HOST": f"https://jane:{SECRET}@x.org", "XNAT_USER": "jane", "XNAT_PASS": SECRET}, "holds a user"),
        ({"XNAT_HOST": "x.org", "XNAT_USER": "jane", "XNAT_PASS": SECRET}, "the address of the XNAT site is none"),
        (
            {"XNAT_HOST": "https://x.org", "XNAT_USER": "jane", "XNAT_PASS": SECRET, "XNAT_VERIFY": "/nonexistent"},
            "XNAT_VERIFY names no file",
        ),
    ],
)
def test_a_problem_is_named_without_the_secret(environment: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        site(environment)
    assert SECRET not in caught.value.line


def test_a_netrc_that_cannot_be_read_is_not_quoted(home: Path):
    (home / ".netrc").write_text(f"machine x.org login jane passwort {SECRET}\n")
    (home / ".netrc").chmod(0o600)
    with pytest.raises(ConfigError, match=r"~/\.netrc cannot be read") as caught:
        site({}, host="https://x.org")
    assert SECRET not in caught.value.line + repr(caught.value.__cause__)


@pytest.mark.parametrize(("given", "verify"), [("", True), ("true", True), ("false", False), ("NO", False), ("0", False)])
def test_certificates_are_checked_unless_told(given: str, verify: bool):
    environment = {
        "XNAT_HOST": "https://x.org",
        "XNAT_USER": "jane",
        "XNAT_PASS": SECRET,
        "XNAT_VERIFY": given,
        "REQUESTS_CA_BUNDLE": "/ca",
    }
    assert site(environment).verify is verify
    # requests would prefer the bundle over what it was told.
    assert ("REQUESTS_CA_BUNDLE" in environment) is verify


def test_a_file_of_certificates(tmp_path: Path):
    (tmp_path / "ca.pem").write_text("")
    environment = {"XNAT_HOST": "https://x.org", "XNAT_USER": "jane", "XNAT_PASS": SECRET, "XNAT_VERIFY": str(tmp_path / "ca.pem")}
    assert site(environment).verify
    assert environment["REQUESTS_CA_BUNDLE"] == str(tmp_path / "ca.pem")
