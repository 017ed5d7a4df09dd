# SPDX-License-Identifier: GPL-2.0-only
"""Builds a Linux with pinfold's two requests in it, boots it in QEMU, and tests it there."""
