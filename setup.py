"""The one thing that pyproject.toml cannot say: a part that is built where it can be, and left out where it cannot."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "loaders._jpeg_part",
            ["loaders/_jpeg_part.c"],
            libraries=["jpeg"],
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
            optional=True,
        )
    ]
)
