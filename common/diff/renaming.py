"""Which name of A is which name of B? For rows that are one per name: operators and ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.diff.difference import Tier
from common.diff.names import normalised


@dataclass(frozen=True)
class NamePair:
    """One row's names; None on a side that does not have it."""

    a: str | None
    b: str | None
    tier: Tier


def pair_names(
    names_a: Mapping[str, int],
    names_b: Mapping[str, int],
    seen_together: Mapping[tuple[str, str], int],
) -> list[NamePair]:
    """Equal names, then names equal once normalised, then names seen at the same places.

    `names_a` and `names_b` give each name its weight, `seen_together` gives (name of A, name of B)
    the part of both weights that was matched by path and position. Each name is used once; a pair
    must be each other's largest and cover half of what the two weigh, or it proves nothing.
    """
    left, right = dict.fromkeys(names_a), dict.fromkeys(names_b)
    pairs = [NamePair(name, name, Tier.EXACT) for name in left if name in right]
    left = dict.fromkeys(name for name in left if name not in right)
    right = dict.fromkeys(name for name in right if not any(p.b == name for p in pairs))
    by_norm_a, by_norm_b = _unique_normalised(left), _unique_normalised(right)
    for key, name in by_norm_a.items():
        if key in by_norm_b:
            pairs.append(NamePair(name, by_norm_b[key], Tier.NORMALISED))
            del left[name], right[by_norm_b[key]]
    likely = {
        (name, other): weight
        for (name, other), weight in seen_together.items()
        if name in left and other in right and 2 * weight >= names_a[name] + names_b[other]
    }
    best_a, best_b = _largest(likely, 0), _largest(likely, 1)
    for name, other in best_a.items():
        if best_b.get(other) == name:
            pairs.append(NamePair(name, other, Tier.POSITION))
            del left[name], right[other]
    pairs += [NamePair(name, None, Tier.UNMATCHED) for name in left]
    pairs += [NamePair(None, name, Tier.UNMATCHED) for name in right]
    return pairs


def _unique_normalised(names: Iterable[str]) -> dict[str, str]:
    """Names by their normalised form, where that form is one name's alone."""
    forms = {name: normalised(name) for name in names}
    often = Counter(forms.values())
    return {form: name for name, form in forms.items() if often[form] == 1}


def _largest(weights: Mapping[tuple[str, str], int], side: int) -> dict[str, str]:
    best: dict[str, tuple[int, str]] = {}
    for pair, weight in weights.items():
        own, other = pair[side], pair[1 - side]
        if weight > 0 and (own not in best or (weight, other) > best[own]):
            best[own] = (weight, other)
    return {own: other for own, (_, other) in best.items()}
