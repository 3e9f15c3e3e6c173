"""Asks the service 5,000 questions and more that its OpenAPI document allows or forbids: none may end in a 5xx.

    pip install schemathesis                                      in an environment of its own
    python -m tests.benchmarks.fuzz_service --schemathesis PATH/schemathesis

The service is a process with a dataset of real videos, runs and a token; the questions come from schemathesis, the pushes among them are
written. The event stream is left out, as it does not end; tests/service/test_stream.py asks it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from loaders.telemetry import TelemetryWriter
from tests.benchmarks._common import write_result
from tests.service.conftest import sample

PROJECT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef0123"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemathesis", default="schemathesis", help="the program")
    parser.add_argument("--examples", type=int, default=400, help="of each operation and phase")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for words in (("demo-videos", folder / "source", "--num-videos", "32"),
                      ("convert", folder / "source/videos", folder / "motion", "--labels", folder / "source/labels.csv",
                       "--short-side", "96", "64")):  # fmt: skip
            command = [sys.executable, "-m", "clipmill", "ingest", *map(str, words)]
            subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
        (folder / "token").write_text(TOKEN)
        writer = TelemetryWriter(folder / "runs" / "live", {"method": "srtg"})
        for step in range(20):
            writer.report(sample(step))
        serve = [
            sys.executable,
            "-m",
            "clipmill",
            "serve",
            "--root",
            folder / "motion",
            "--runs",
            folder / "runs",
            "--port",
            "0",
        ]
        with subprocess.Popen(
            [*map(str, serve), "--token-file", str(folder / "token")],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as service:
            try:
                assert service.stdout is not None and service.stderr is not None
                url = re.findall(r"http://\S+", service.stdout.readline())[0].rstrip("/")
                done = subprocess.run(
                    [
                        arguments.schemathesis, "run", f"{url}/openapi.json", "--checks", "not_a_server_error",
                        "--header", f"Authorization: Bearer {TOKEN}", "--max-examples", str(arguments.examples),
                        "--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--seed", str(arguments.seed),
                        "--exclude-path", "/api/loaders/{run}/stream", "--workers", "1", "--max-time", "1500", "--no-color",
                        "--suppress-health-check", "all", "--report-ndjson-path", str(folder / "report.ndjson"),
                    ],
                    cwd=folder, capture_output=True, text=True, check=False,
                )  # fmt: skip
                alive = service.poll() is None
            finally:
                service.terminate()
                log = service.stderr.read()
        writer.close("finished")
        statuses = Counter(re.findall(r'"status_code":\s*(\d+)', (folder / "report.ndjson").read_text()))
    print(done.stdout[-3000:])
    cases = sum(statuses.values())
    server_errors = {status: n for status, n in statuses.items() if status.startswith("5")}
    version = subprocess.run(
        [arguments.schemathesis, "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    figures = {
        "cases": cases, "statuses": dict(sorted(statuses.items())), "server_errors": server_errors,
        "service_alive": alive, "tracebacks_in_log": log.count("Traceback"), "exit_code": done.returncode, "with": version,
    }  # fmt: skip
    print(json.dumps(figures, indent=2))
    write_result("service_fuzz", figures)
    sys.exit(0 if cases >= 5000 and not server_errors and alive else 1)


if __name__ == "__main__":
    main()
