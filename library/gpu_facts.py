#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: what a host's GPUs, their driver and all that stands on it are."""

from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu.facts import gather
from ansible.module_utils.gpu.host import ADMIN_PATH, Host

DOCUMENTATION = r"""
module: gpu_facts
short_description: What a host's NVIDIA GPUs, their driver and all that stands on it are
description:
  - Reads the PCI bus, which needs no driver, then whatever of the driver, NVIDIA's tools and services is there.
  - Changes nothing, and never fails because something is absent. Runs modinfo, systemctl, nvidia-ctk, nv-fabricmanager,
    docker and nvidia-smi, each only where it is installed; nvidia-smi two to four times.
  - Needs root to see all.
options:
  root:
    description:
      - Folder that stands for /, such as a rescue system's view of a host. With another folder than / no command is
        run, since it would speak of the running system.
    type: path
    default: /
  timeout:
    description: Seconds for all commands together; nvidia-smi comes last, since a GPU that hangs holds it.
    type: int
    default: 60
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Gather the facts of the GPUs
  gpu_facts:
"""

RETURN = r"""
ansible_facts:
  description: redoubt_gpu, with the same keys on every host; null is "not known" or "there is none".
  returned: always
  type: dict
  contains:
    redoubt_gpu:
      description: The document below.
      type: dict
      contains:
        pci: {description: Whether the host has a PCI bus to look at., type: bool}
        gpus:
          description:
            - A row for each GPU on the PCI bus, in bus order; empty without GPUs.
            - "From the bus: address (0000:1b:00.0), device (10de:2330), subsystem (16c1), numa_node, bound (the driver
              that holds it: nvidia, nouveau, vfio-pci)."
            - "From the table of ids, null for an unknown product: product, generation, form (SXM, PCIe, superchip),
              mig_capable, nvlink (generation; null without NVLink), supports_open_module, needs_open_module."
            - "From nvidia-smi, null without its answer: index, uuid, serial, name, persistence, ecc, ecc_uncorrected
              (since the driver was loaded), remap_pending, remap_failed, recovery_action (the word None when there is
              none), mig, mig_pending, fabric_state, fabric_status, compute_mode; mig_devices, a list of
              {profile, uuid}."
            - "memory_mib: what nvidia-smi says, before there is a driver what the product has."
            - "visible: whether nvidia-smi lists it, null where nvidia-smi lists nothing because it failed; lost:
              whether nvidia-smi says that it cannot reach it."
          type: list
          elements: dict
        nvswitches:
          description: "Each NVIDIA bridge on the bus: address, device, numa_node, bound, product, nvlink."
          type: list
          elements: dict
        nvlink_management:
          description: "Each function that manages NVLink 5 switches: address, device, numa_node, bound."
          type: list
          elements: dict
        driver:
          description:
            - "kernel: the release of the running kernel."
            - "loaded and installed: versions of the nvidia module in the kernel and on disk; loaded_flavour and
              installed_flavour: open or proprietary."
            - "library: the newest version of libnvidia-ml.so; libraries: all versions found."
            - "dkms: list of {module, version, kernel, state}; state is added, built or installed."
            - "nouveau: whether it is loaded; nodes: device nodes /dev/nvidia*."
          type: dict
        smi:
          description:
            - "installed; driver: the version it names; off_bus: addresses that it knows and the bus does not."
            - "error: version_mismatch, no_driver, no_devices, gpu_lost, timeout, failed, or null; text: its words."
          type: dict
        secure_boot: {description: Whether the firmware checks signatures; null without EFI., type: bool}
        reboot:
          description:
            - "driver: another driver than the loaded one is installed; system: /run/reboot-required is there;
              packages: the packages that ask for it."
          type: dict
        toolkit:
          description:
            - "version: nvidia-ctk's; cdi: a list of {path, kind, version, devices, driver, stale}, one for each
              specification of NVIDIA in /etc/cdi and /run/cdi. driver is the one it was made for; stale: it is not
              the loaded one; null where either is not known."
          type: dict
        docker:
          description: "version of the running Docker Engine; cdi: whether it resolves CDI devices. null without one."
          type: dict
        services:
          description:
            - "fabric_manager, persistenced, cdi_refresh, imex: each {active, enabled}, null where not installed.
              active is systemd's word (active, inactive, failed, activating)."
          type: dict
        fabric_manager: {description: Version of the installed fabric manager; null without it., type: str}
"""


def open_host(root: str, seconds: float) -> Host:
    """The host under `root`; commands are run only for the running system."""
    search = f"{os.environ.get('PATH', '')}:{ADMIN_PATH}" if os.path.realpath(root) == "/" else None
    return Host(root, search, seconds)


def main() -> None:
    """Gather and answer."""
    module = AnsibleModule(
        argument_spec={"root": {"type": "path", "default": "/"}, "timeout": {"type": "int", "default": 60}},
        supports_check_mode=True,
    )
    facts = gather(open_host(module.params["root"], module.params["timeout"]))
    module.exit_json(ansible_facts={"redoubt_gpu": facts})


if __name__ == "__main__":
    main()
