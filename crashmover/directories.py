# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Our directories in a user's home: for the configuration, and for state.

A container often has no home: HOME is unset, and the uid has no line in /etc/passwd.
"""

from pathlib import Path

NO_HOME = "no home directory"


def config_directory() -> Path | None:
    """Return the platform's directory for our configuration; None without a home directory."""
    return _below_home("user_config_path")


def state_directory() -> Path | None:
    """Return the platform's directory for our state; None without a home directory."""
    return _below_home("user_state_path")


def _below_home(name: str) -> Path | None:
    """Return an absolute path, or None: a relative path would mean the working directory."""
    import platformdirs  # only where a name is looked up, or a message is malformed

    try:
        path: Path = getattr(platformdirs, name)("crashmover")
    except RuntimeError:  # from platformdirs, if neither HOME nor /etc/passwd has a home
        return None
    return path if path.is_absolute() else None  # older versions return "~/..."
