"""Whether the service itself is well."""

from __future__ import annotations

from pydantic import Field

from service.models.base import Model


class Health(Model):
    status: str = Field(examples=["ok"])


class Ready(Model):
    """`datasets`: per dataset `ok`, or why its catalog cannot be read; one that cannot does not stop the others."""

    status: str = Field(examples=["ok"])
    datasets: dict[str, str] = Field(examples=[{"ucf101": "ok"}])
