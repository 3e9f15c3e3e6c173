"""What the authors' name resolver built for a name, which is often not what the name says.

It looks for parts of the name in a fixed order, "R3D" before "SRTG_R3D", so that every name of a network with recursion
gave the network without. A published file may hence hold another network than it is called after.
"""

from __future__ import annotations

_MTNET_GROUPED = (("XS", "xs_g8"), ("S", "s_g8"), ("M", "m_g8"), ("XXL", "l_g8"), ("XL", "l_g8"), ("L", "l_g8"))
_MTNET = (("XXL", "xxl"), ("XS", "s"), ("S", "s"), ("M", "m"), ("XL", "l"), ("L", "l"))
_SIZES = ("_18", "_34", "_50", "_101", "_152", "_200")


def authors_built(name: str) -> str | None:
    """The factory of theirs that `name` led to, called as in their code; None where their resolver gave up.

    `MTNet` without a size, and any 3D name without a known depth, lead to a network too: a typo gave the widest one.
    """
    upper = name.upper()
    if "MTNET" in upper:
        size = upper.partition("MTNET")[2]
        table, default = (_MTNET_GROUPED, "m_g8") if "G8" in upper else (_MTNET, "m")
        return "MTNet_" + next((made for part, made in table if f"_{part}" in f"{size}_"), default)
    for kind in ("R3D", "R2PLUS1D"):
        if kind in upper:
            return _residual(upper, kind)
    return None


def _residual(upper: str, kind: str) -> str:
    made = kind.lower()
    for size in _SIZES:
        if kind + size in upper:
            return made + size
    if f"{kind}XT50" in upper:
        return f"{made}xt50_32x4d"
    if f"{kind}XT101" in upper:
        return f"{made}xt101_32x8d"
    if f"WIDE_{kind}50" in upper:
        # The 3D branch returns the other network of the same shape: 32 groups of base width 4 are twice the width.
        return "r3dxt50_32x4d" if kind == "R3D" else f"wide_{made}50_2"
    return f"wide_{made}101_2"
