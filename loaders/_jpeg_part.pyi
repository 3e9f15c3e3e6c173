from collections.abc import Sequence

import numpy as np

def decode_parts(
    jpegs: Sequence[bytes | np.ndarray],
    out: np.ndarray,
    width: int,
    height: int,
    left: int,
    top: int,
    columns: int,
    rows: int,
    bgr: bool,
    /,
) -> int: ...
