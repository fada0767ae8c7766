"""How does a step that is a function of a problem run? In this process, started for it alone.

python -m common.experiments.record_function package.module:function --problem P --out DIR …

The function takes a `StepContext` and leaves run folders below its `out`, as every verb does:
`RunWriter.create(context.request().run_parent, …)`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from common.contract.problem import root
from common.errors import UsageError, WorklogError
from common.experiments.request import Request, settle


@dataclass(frozen=True)
class StepContext:
    """What a step is asked for. `preset` None: the problem's own choice for this device."""

    problem: str
    out: Path
    device: str
    preset: str | None
    variants: tuple[str, ...]
    arguments: tuple[str, ...]

    def request(self) -> Request:
        """The same, settled against this machine as for every verb."""
        return settle(self.problem, self.preset, self.variants, self.device, self.out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("function")
    parser.add_argument("--problem", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--preset")
    parser.add_argument("--variants", default="")
    given, more = parser.parse_known_args()
    variants = tuple(name for name in given.variants.split(",") if name)
    context = StepContext(
        given.problem, given.out, given.device, given.preset, variants, tuple(more)
    )
    module, _, name = given.function.partition(":")
    sys.path.append(str(root()))  # for `problems`
    try:
        function = getattr(import_module(module), name, None)
        if function is None:
            raise UsageError(f"{module} has no function {name}; correct problem.toml")
        function(context)
    except WorklogError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
