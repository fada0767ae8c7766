"""Time, record, read, diff and report inference runs. Importing this package imports no torch."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("inference-worklog")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
