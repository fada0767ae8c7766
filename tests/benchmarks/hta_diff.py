"""Runs the trace diff of HTA (or of its successor, imported by the same name) on two traces.

python hta_diff.py BACKEND A.json B.json        with the interpreter of tests/benchmarks/peers.py
"""

import logging
import sys
import warnings


def main() -> None:
    backend, control, test = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if backend != "default":
        from hta.configs.parser_config import ParserBackend, ParserConfig

        config = ParserConfig.get_default_cfg()
        config.set_parser_backend(ParserBackend(backend))
        ParserConfig.set_default_cfg(config)
    from hta.common.trace import Trace
    from hta.trace_diff import LabeledTrace, TraceDiff

    sides = [
        LabeledTrace(label, t=Trace(trace_files={0: path}, trace_dir=""))
        for label, path in (("control", control), ("test", test))
    ]
    found = TraceDiff.compare_traces(*sides)
    if not len(found):
        raise SystemExit("no rows")


if __name__ == "__main__":
    main()
