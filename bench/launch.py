"""Runs one program under an allocator and measures it."""

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Settings of the caller's that would change an allocator behind our back.
ALLOCATOR_VARIABLES = ("BULKHEAD_", "MALLOC_", "MIMALLOC_", "TCMALLOC_", "SCUDO_", "GLIBC_TUNABLES", "LD_PRELOAD")


class Failure(Exception):
    """A measured program did not do its work."""


@dataclass(frozen=True)
class Sample:
    """What one run took."""

    seconds: float
    processor: float  # user and system time, in seconds
    peak_kib: int


def clean_environment(**extra: str) -> dict[str, str]:
    """The caller's environment without what steers allocators, in one language."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ALLOCATOR_VARIABLES)}
    return {**kept, "LC_ALL": "C", **extra}


class Running:
    """A started program. Its launcher (programs/measure.c) reports at its end."""

    def __init__(self, measure: Path, command: list[str], library: str, cwd: Path, env: dict[str, str]):
        self.command = command
        read_end, write_end = os.pipe()
        self.report = os.fdopen(read_end)
        self.process = subprocess.Popen(
            [str(measure), str(write_end), library or "-", *command],
            cwd=cwd, env=env, pass_fds=(write_end,), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )
        os.close(write_end)

    def finish(self, timeout: float) -> Sample:
        """Waits for the end and returns what was measured, or raises Failure."""
        try:
            _, complaint = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self.command[0]}: not done after {timeout:g} s") from None
        with self.report:
            text = self.report.read().split()
        if self.process.returncode != 0 or len(text) != 3:
            said = " | ".join(complaint.strip().splitlines()[-3:])
            raise Failure(f"{' '.join(self.command)}: {self.describe_end()}: {said or 'no message'}")
        return Sample(float(text[0]), float(text[1]), int(text[2]))

    def describe_end(self) -> str:
        """The exit code, or the name of the signal."""
        code = self.process.returncode
        number = code - 128 if code > 128 else -code
        if number > 0:
            try:
                return signal.Signals(number).name
            except ValueError:
                pass
        return f"exit code {code}"

    def kill(self) -> None:
        """Ends the program, its launcher and all that they started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self.report.close()


def output_of(command: list[str], library: str, seed: int, timeout: float, **extra: str) -> str:
    """What the program prints, with the library preloaded ("" for none)."""
    env = clean_environment(BENCH_SEED=str(seed), **({"LD_PRELOAD": library} if library else {}), **extra)
    try:
        run = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                             timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise Failure(f"{command[0]}: not done after {timeout:g} s") from None
    if run.returncode != 0:
        said = " | ".join(run.stderr.strip().splitlines()[-3:])
        raise Failure(f"{' '.join(command)}: exit code {run.returncode}: {said or 'no message'}")
    return run.stdout


@dataclass(frozen=True)
class Context:
    """What a row needs to know to run."""

    programs: Path  # where the benchmark programs are built
    folder: Path    # temporary, of this row in this round
    scale: float    # work amount
    seed: int
    timeout: float
    environment: dict[str, str] = field(default_factory=dict)  # of what is started from here on

    def amount(self, usual: int) -> int:
        """A work amount, scaled."""
        return max(1, round(usual * self.scale))

    def start(self, command: list[str], library: str, **extra: str) -> Running:
        """Starts a program in the folder with the library preloaded ("" for none)."""
        env = clean_environment(BENCH_SEED=str(self.seed), TMPDIR=str(self.folder), **self.environment, **extra)
        return Running(self.programs / "measure", command, library, self.folder, env)

    def run(self, command: list[str], library: str, **extra: str) -> Sample:
        """Runs a program to its end and returns what it took."""
        running = self.start(command, library, **extra)
        try:
            return running.finish(self.timeout)
        except KeyboardInterrupt:
            running.kill()
            raise
