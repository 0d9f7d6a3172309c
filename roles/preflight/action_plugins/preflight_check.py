"""Action of the preflight role: reads variables and facts on the control host and refuses what cannot work.

Needs no connection. Two stages:

stage: variables   every host's variables at once, before any host is asked (run once)
stage: plan        one host with its facts; returns `document`, the input of the filter `deployment_plan`

The judgements themselves are pure functions of the package `planner`; here is only what needs Ansible.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader

sys.path.append(str(Path(__file__).resolve().parents[3]))

from locks import in_force
from planner import driver_wishes, evaluate, gpu_stack, inventory, site_document, sources, watch
from planner.plain import plain
from planner.problems import Problem, merged, report
from provenance import signatures
from provenance.files import text

FACTS_VARIABLE = "ansible_facts"
_LOCK_VARIABLES = (
    "redoubt_depot",
    "redoubt_images",
    "redoubt_lock_downgrade",
    "redoubt_model_locks",
    sources.VARIABLE,
    signatures.VARIABLE,
)
_DCGM_VERSION = "dcgm_package_version"
_HOST_VARIABLES = (
    "redoubt_conversions",
    "redoubt_models",
    "redoubt_private_address",
    "depot_port",
    "preflight_gpus",
    "dcgm_method",
    "nvidia_mig_layout",
    "nvidia_container_toolkit_legacy_runtime",
    "docker_data_root",
    "gateway_server_names",
    "gateway_https_port",
)


class _Host:
    """One host's variables, evaluated one by one; what fails is noted, unless it must wait for the host's facts."""

    def __init__(self, raw: Mapping[str, Any], evaluate_one: Callable[[str], Any], *, facts_known: bool) -> None:
        self.names = frozenset(str(key) for key in raw)
        self.values: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.unknown: set[str] = set()
        # What this host was told of drained hosts; known once its facts are.
        self.drained: Mapping[str, Any] = plain((raw.get(FACTS_VARIABLE) or {}).get("redoubt_drained") or {})
        self._evaluate = evaluate_one
        self._waiting = frozenset() if facts_known else inventory.needing(FACTS_VARIABLE, raw)

    def read(self, names: Iterable[str]) -> None:
        """Evaluate these variables where they are set."""
        for name in names:
            if name not in self.names:
                continue
            try:
                self.values[name] = plain(self._evaluate(name))
            except (AnsibleError, ValueError) as error:
                self.unknown.add(name)
                if name not in self._waiting:
                    # "X is undefined" holds names only, other messages may quote what was being evaluated.
                    safe = isinstance(error, AnsibleUndefinedVariable)
                    self.problems.append(inventory.not_evaluated(name, _first_line(error), safe=safe))

    @property
    def variables(self) -> inventory.Variables:
        """The names and the values known so far."""
        return inventory.Variables(self.names, self.values)


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core publishes no types
    """Refuses early; see the module's text."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return {failed, msg, problems} or, in stage plan, {document, warnings}."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        stage = self._task.args.get("stage")
        if stage == "variables":
            return result | self._check_variables(variables)
        if stage == "plan":
            return result | self._plan(variables)
        raise AnsibleError(f"preflight_check: stage is {stage!r}, not 'variables' or 'plan'")

    # Stage "variables"

    def _check_variables(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        rules = self._rules()
        groups = self._groups()
        names = [str(host) for host in task_vars["ansible_play_hosts_all"]]
        plan_only = self._task.args.get("plan_only") is True
        hosts = {name: self._host(name, task_vars, facts_known=False) for name in names}
        for host in hosts.values():
            host.read([*self._documented(host.names, rules), *_HOST_VARIABLES])
        found: list[Problem] = []
        for name, host in hosts.items():
            kinds = inventory.kinds_of(name, groups)
            problems = [*host.problems, *inventory.check(host.variables, kinds, rules)]
            problems += [*sources.problems(host.values.get(sources.VARIABLE)), *self._tls(host, kinds)]
            problems += self._signatures(host, kinds, task_vars).problems
            found.extend(problem.on(name) for problem in problems)
        locks = self._locks()
        for name, host in list(hosts.items()):
            lock, refused, _ = locks.row(host, None, plan_only=plan_only)
            found.extend(problem.on(name) for problem in refused)
            document = self._document(name, host, groups, partial(self._known, hosts, task_vars), later=not plan_only)
            document["lock"] = lock
            # Facts come later; in a plan-only run the assumed ones are all there is.
            facts = self._assumed() if plan_only else None
            shown = {"plan_only": plan_only or self._locking(), "facts_expected": not plan_only, "facts": facts}
            _, planned = evaluate(document | shown)
            found.extend(problem if problem.hosts else problem.on(name) for problem in planned)
        return self._answer(self._brief(merged(inventory.first_of_each_place(found)), names))

    def _known(self, hosts: dict[str, _Host], task_vars: dict[str, Any], name: str) -> _Host:
        """Return another host's variables; those outside --limit are read when somebody needs them."""
        if name not in hosts:
            hosts[name] = self._host(name, task_vars, facts_known=False)
            hosts[name].read(_HOST_VARIABLES)
        return hosts[name]

    @staticmethod
    def _brief(problems: Sequence[Problem], hosts: Sequence[str]) -> list[Problem]:
        """Name the hosts only where a problem is not everywhere."""
        return [problem.on() if len(problem.hosts) == len(hosts) else problem for problem in problems]

    def _rules(self) -> inventory.Rules:
        folder = Path(str(self._task.args["roles_path"]))
        options: dict[str, Any] = {}
        for path in sorted(folder.glob("*/meta/argument_specs.yml")):
            document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            options[path.parents[1].name] = document.get("argument_specs", {}).get("main", {}).get("options", {}) or {}
        renamed = yaml.safe_load(Path(str(self._task.args["renamed_file"])).read_text(encoding="utf-8")) or {}
        judges = {}
        for role in options:
            judge = filter_loader.get(f"{role}_problems")
            if judge is not None:
                judges[role] = judge.j2_function
        return inventory.Rules(
            specs=options,
            renamed=renamed,
            ignored=plain(self._task.args.get("ignored_variables") or []),
            planned=plain(self._task.args.get("planned_variables") or []),
            roles=plain(self._task.args.get("roles_of_kinds") or {}),
            judges=judges,
        )

    @staticmethod
    def _documented(names: frozenset[str], rules: inventory.Rules) -> list[str]:
        return sorted(names & {name for options in rules.specs.values() for name in options})

    def _tls(self, host: _Host, kinds: Sequence[str]) -> list[Problem]:
        """Judge a given certificate pair with the gateway's own filter."""
        judge = filter_loader.get("gateway_tls_problems")
        if judge is None or "gateway" not in kinds or host.values.get("gateway_tls_mode") != "files":
            return []
        texts: list[str] = []
        for name in ("gateway_tls_certificate", "gateway_tls_key", "gateway_tls_ca"):
            value = host.values.get(name)
            try:
                texts.append(text(self._loader, value) if isinstance(value, str) and value else "")
            except (OSError, ValueError) as error:
                why = f"the file cannot be read ({_first_line(error)})"
                return [Problem(name, why, "give its path on this machine")]
        names = host.values.get("gateway_server_names")
        served = [str(name) for name in names] if isinstance(names, list) else []
        lines = judge.j2_function(texts[0], texts[1], served, texts[2])
        return [inventory.parse_line(str(line)) for line in lines]

    def _signatures(self, host: _Host, kinds: Sequence[str], task_vars: Mapping[str, Any]) -> signatures.Verdict:
        """Judge the signatures of a host's models."""
        folder = f"{task_vars.get('inventory_dir')}/signatures"
        return signatures.judge(host.values if "inference" in kinds else {}, folder, partial(text, self._loader))

    # Stage "plan"

    def _plan(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        name = str(task_vars["inventory_hostname"])
        plan_only = self._task.args.get("plan_only") is True
        this = self._host(name, task_vars, facts_known=not plan_only)
        this.read([*_HOST_VARIABLES, *_LOCK_VARIABLES, *driver_wishes.NAMES, driver_wishes.MANAGE, _DCGM_VERSION])
        this.read(in_force.VARIABLES)
        others: dict[str, _Host] = {}
        document = self._document(name, this, self._groups(), partial(self._known, others, task_vars))
        document |= {"plan_only": plan_only or self._locking()}
        document |= {"facts": self._facts(task_vars, plan_only=plan_only)}
        known = None if plan_only else plain(task_vars.get(FACTS_VARIABLE) or {})
        document["lock"], refused, told = self._locks().row(this, known, plan_only=plan_only)
        document["warnings"] += told
        _, found = evaluate(document)
        kinds = inventory.kinds_of(name, self._groups())
        verdict = self._signatures(this, kinds, task_vars)
        document["warnings"] += verdict.warnings
        found = [*refused, *found, *verdict.problems]  # what waited for facts was not judged before
        stack = None if plan_only else self._driver(this, kinds, task_vars)
        if stack is not None:
            found = [*found, *stack.problems]
            document |= {"driver": dict(stack.expected), "warnings": [*document["warnings"], *stack.warnings]}
        # A host that is down may be left out of the others' plans; one that was not asked may not.
        down = set(task_vars["ansible_play_hosts_all"]) - set(task_vars["ansible_play_hosts"])
        # The depot's host is looked at for its address alone: it is not in the document of a mere inference host.
        left_out = set(others) - set(document["hosts"]) - down
        unasked = [] if plan_only else sorted(other for other in left_out if others[other].unknown)
        problems = inventory.first_of_each_place(
            [*this.problems, *(inventory.not_asked(other, others[other].unknown) for other in unasked), *found]
        )
        return self._answer(problems) if problems else {"changed": False, "document": document}

    @staticmethod
    def _driver(this: _Host, kinds: Sequence[str], task_vars: dict[str, Any]) -> gpu_stack.Stack | None:
        """Return the decisions about the driver; None for a host that serves nothing with GPUs, or manages its own."""
        known = task_vars.get(FACTS_VARIABLE) or {}
        gpu = plain(known.get("redoubt_gpu"))
        managed = "inference" in kinds and this.values.get(driver_wishes.MANAGE) is not False
        if not gpu or not gpu["gpus"] or not managed or this.problems:
            return None
        wishes = driver_wishes.wishes(this.values)
        made = gpu_stack.stack(gpu, plain(known), wishes, datetime.now(UTC).date())
        brought = wishes.dcgm_version if wishes.source == "nvidia" else ""
        double = watch.dcgm_problems(brought, this.values.get("dcgm_method"), this.values.get(_DCGM_VERSION))
        return replace(made, problems=(*made.problems, *double))

    def _document(
        self,
        name: str,
        this: _Host,
        groups: dict[str, list[str]],
        other_host: Callable[[str], _Host],
        *,
        later: bool = False,
    ) -> dict[str, Any]:
        """Return the planner's document; see site_document.document."""
        reserve = int(float(self._task.args.get("disk_reserve_gib", 0)) * 2**30)
        return site_document.document(
            name, this, groups, other_host, frozenset(_HOST_VARIABLES), later=later, disk_reserve=reserve
        )

    def _facts(self, task_vars: dict[str, Any], *, plan_only: bool) -> dict[str, Any] | None:
        if plan_only:
            return self._assumed()
        known = task_vars.get(FACTS_VARIABLE) or {}
        own = known.get("redoubt_host") or {}
        facts = {
            "system": known.get("distribution"),
            "version": known.get("distribution_version"),
            "architecture": known.get("architecture"),
            "gpu_rows": (known.get("redoubt_gpu") or {}).get("gpus"),
            **own,
        }
        return dict(plain(facts))

    # Both stages

    def _locking(self) -> bool:
        """Whether this plan is for making a lock: then nothing is installed, and digests may still be unknown."""
        return self._task.args.get("without_lock") is True

    def _locks(self) -> in_force.Locks:
        return in_force.Locks(Path(__file__).resolve().parents[3], ignored=self._locking())

    def _assumed(self) -> dict[str, Any]:
        return dict(plain(self._task.args.get("assumed_facts") or {}))

    def _groups(self) -> dict[str, list[str]]:
        raw = plain(self._task.args.get("kinds") or {})
        unknown = sorted(set(raw) - set(inventory.KINDS))
        if unknown:
            known = ", ".join(inventory.KINDS)
            raise AnsibleError(f"preflight_kinds: {', '.join(unknown)} is not known; write some of {known}")
        return {group: [str(host) for host in hosts or []] for group, hosts in raw.items()}

    def _host(self, name: str, task_vars: dict[str, Any], *, facts_known: bool) -> _Host:
        mine = str(task_vars["inventory_hostname"])
        variables: Mapping[str, Any] = task_vars
        if name != mine:
            # Another host's own variables, over those that the play and the role give to every host.
            hostvars = task_vars["hostvars"]
            own = hostvars.raw_get(mine)
            shared = {key: value for key, value in task_vars.items() if key not in own}
            variables = {**shared, **hostvars.raw_get(name)}
        templar = self._templar.copy_with_new_env(available_variables=variables)
        return _Host(variables, lambda key: templar.template(variables[key]), facts_known=facts_known)

    @staticmethod
    def _answer(problems: Sequence[Problem]) -> dict[str, Any]:
        if not problems:
            return {"changed": False}
        return {"changed": False, "failed": True, "msg": report(problems)}


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
