# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Which servers of the gateway's pools take requests: asked by a timer. Standard library only, Python 3.9+."""
