# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The depot: one store of bytes by their SHA-256, and views on it by hard link. Standard library only, Python 3.9+."""
