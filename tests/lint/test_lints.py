"""The checks of this folder can fail: each is shown something wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lint import role_readme, test_repository, test_roles
from tests.lint.roles import Role

GOOD_SPEC = """
argument_specs:
  main:
    short_description: An example
    description: [It shows C(something).]
    options:
      example_port:
        type: int
        default: 80
        description: A port.
      example_users:
        type: list
        elements: dict
        required: true
        description: People.
        options:
          name: {type: str, required: true, description: A name.}
"""


def make(folder: Path, **files: str) -> Role:
    """Write a role `example`; names have __ for /."""
    given = {
        "meta__argument_specs.yml": GOOD_SPEC,
        "defaults__main.yml": "example_port: 80\n",
        "tasks__main.yml": "- name: Say it\n  ansible.builtin.debug: {msg: '{{ example_port }} {{ example_users }}'}\n",
    }
    for name, text in (given | files).items():
        path = folder / "example" / name.replace("__", "/", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Role(folder / "example")


CHECKS = {
    "types": test_roles.test_every_option_says_what_it_is,
    "defaults": test_roles.test_specification_and_defaults_say_the_same,
    "prefix": test_roles.test_variables_carry_the_roles_prefix,
    "used": test_roles.test_every_variable_is_used,
    "names": test_roles.test_tasks_have_names_in_sentence_case,
    "groups": test_roles.test_roles_know_no_groups_and_no_injected_facts,
    "errors": test_roles.test_errors_are_never_swallowed,
}


def test_a_good_role_passes(tmp_path: Path) -> None:
    role = make(tmp_path)
    for check in CHECKS.values():
        check(role)


@pytest.mark.parametrize(
    ("check", "file", "text"),
    [
        ("types", "meta__argument_specs.yml", GOOD_SPEC.replace("type: int\n", "type: number\n")),
        ("types", "meta__argument_specs.yml", GOOD_SPEC.replace("description: A name.", "default: x")),
        ("defaults", "defaults__main.yml", "example_port: 81\n"),
        ("defaults", "defaults__main.yml", "{}\n"),
        ("defaults", "defaults__main.yml", "example_port: 80\nexample_prot: 1\n"),
        ("defaults", "defaults__main.yml", "example_port: 80\nexample_users: []\n"),
        ("prefix", "meta__argument_specs.yml", GOOD_SPEC.replace("example_port", "redoubt_port")),
        ("prefix", "vars__main.yml", "example_x: 1\n"),
        ("used", "tasks__main.yml", "- name: Say nothing\n  ansible.builtin.debug:\n"),
        ("names", "tasks__main.yml", "- ansible.builtin.debug:\n"),
        ("names", "tasks__main.yml", "- name: say it\n  ansible.builtin.debug:\n"),
        ("names", "tasks__main.yml", "- name: Outer\n  block:\n    - name: Say it.\n      ansible.builtin.debug:\n"),
        ("groups", "tasks__main.yml", "- name: Go\n  ansible.builtin.debug: {msg: \"{{ groups['gateways'] }}\"}\n"),
        ("groups", "tasks__main.yml", "- name: Go\n  ansible.builtin.debug: {msg: '{{ ansible_os_family }}'}\n"),
        ("errors", "tasks__main.yml", "- name: Go\n  ansible.builtin.debug:\n  ignore_errors: true\n"),
        ("errors", "tasks__main.yml", "- name: Go\n  ansible.builtin.debug:\n  failed_when: false\n"),
    ],
)
def test_a_bad_role_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, file: str, text: str) -> None:
    monkeypatch.setattr(test_roles, "REPOSITORY", tmp_path)
    role = make(tmp_path, **{file: text})
    with pytest.raises(AssertionError):
        CHECKS[check](role)


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (test_roles.test_no_url_outside_the_allowed_list, "url: https://files.pythonhosted.net/x"),
        (test_roles.test_no_image_by_tag_alone, "image: prom/prometheus:v3"),
        (test_roles.test_no_image_by_tag_alone, 'ref: "prom/prometheus:latest"'),
        (test_roles.test_no_image_by_tag_alone, "    state: latest"),
        (test_roles.test_no_image_by_tag_alone, "- tag: 'latest'"),
    ],
)
def test_a_bad_line_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: object, line: str) -> None:
    monkeypatch.setattr(test_roles, "REPOSITORY", tmp_path)
    path = tmp_path / "roles/example/tasks/main.yml"
    path.parent.mkdir(parents=True)
    path.write_text("image: '{{ x }}'\nurl: https://repo.example.org/\n")
    assert callable(check)
    check()
    path.write_text(line + "\n")
    with pytest.raises(AssertionError, match=r"main\.yml:1"):
        check()


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (test_repository.test_no_path_of_the_authors_machine, "x = '/" + "work/main'"),
        (test_repository.test_suppressions_say_why, "x = 1  # " + "noqa: S101"),
        (test_repository.test_suppressions_say_why, "x = 1  # type: " + "ignore[misc]"),
    ],
)
def test_a_bad_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: object, line: str) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1  # " + "noqa: S101 - because\n")
    monkeypatch.setattr(test_repository, "REPOSITORY", tmp_path)
    monkeypatch.setattr(test_repository, "tracked", lambda: [path])
    assert callable(check)
    check()
    path.write_text(line + "\n")
    with pytest.raises(AssertionError):
        check()


def test_a_readme_keeps_what_is_written_by_hand(tmp_path: Path) -> None:
    role = make(tmp_path)
    readme = tmp_path / "example/README.md"
    readme.write_text(role_readme.readme(role) + "\n## Example\n\nBy hand.\n")
    before = readme.read_text()
    assert "| `example_users[].name` | str | **required** | A name. |" in before
    assert "| `example_port` | int | `80` | A port. |" in before
    assert role_readme.readme(role) == before
    changed = make(tmp_path, **{"meta__argument_specs.yml": GOOD_SPEC.replace("A port", "The port")})
    after = role_readme.readme(changed)
    assert after != before
    assert after.endswith("## Example\n\nBy hand.\n")
