# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The bundle: a depot's content on its way through an air gap. Standard library only, Python 3.9+."""
