"""What went wrong, in one line that ends in the next action.

The command line turns these into an exit code and that one line; nothing else may reach a user as
a traceback. Exit codes are those of the README: 1 a check says no, 2 usage or unreadable input,
3 a precondition is missing.
"""

from __future__ import annotations


class WorklogError(Exception):
    """Base of every error that a user can cause or mend."""

    exit_code = 1


class CheckFailed(WorklogError):
    """A check or gate says no."""

    exit_code = 1


class UsageError(WorklogError):
    """The call or the input is wrong: a name that does not exist, a file that cannot be read."""

    exit_code = 2


class PreconditionError(WorklogError):
    """Something that the work needs is missing: a package, a compiler, space on the disk."""

    exit_code = 3
