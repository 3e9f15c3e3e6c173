import numpy as np

def decode_part(
    jpeg: bytes, out: np.ndarray, width: int, height: int, left: int, top: int, columns: int, rows: int, bgr: bool, /
) -> bool: ...
