# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a rendered Nginx configuration must keep to. No I/O but a private temporary file, no Ansible.

Use `breaches(text, …)`: every breach as one line, none when all is well.
"""

from policy.rules import breaches

__all__ = ["breaches"]
