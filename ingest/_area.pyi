from typing_extensions import Buffer

def taps(source: int, target: int, unit: int, /) -> bytes: ...
def scale(
    plane: Buffer,
    stride: int,
    width: int,
    height: int,
    across: bytes,
    down: bytes,
    offset: float,
    out: Buffer,
    out_stride: int,
    /,
) -> None: ...
