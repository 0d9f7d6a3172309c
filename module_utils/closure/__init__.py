# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Package closures: which exact packages a platform needs for what the roles wish. Standard library only."""
