"""The one thing that pyproject.toml cannot say: parts that are built where they can be, and left out where they cannot."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "loaders._jpeg_part",
            ["loaders/_jpeg_part.c"],
            libraries=["jpeg"],
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
            optional=True,
        ),
        Extension(
            "ingest._planes", ["ingest/_planes.c"], extra_compile_args=["-O3", "-Wall", "-Wextra"], optional=True
        ),
    ]
)
