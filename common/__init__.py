"""Time, record, read, diff and report inference runs. Importing this package imports no torch."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when asked for: it takes longer than reading a small trace."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("inference-worklog")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"
