"""Where the allocators are that we compare."""

import glob
import platform
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from launch import clean_environment


@dataclass(frozen=True)
class Allocator:
    """A name, the library to preload, and what else its environment says."""

    name: str
    library: str
    environment: dict[str, str] = field(default_factory=dict)


# Name of the allocator: Debian's package, and patterns of its library.
PEERS = {
    "mimalloc": ("libmimalloc2.0", ["libmimalloc.so.2"]),
    "jemalloc": ("libjemalloc2", ["libjemalloc.so.2"]),
    "tcmalloc": ("libtcmalloc-minimal4", ["libtcmalloc_minimal.so.4"]),
    "scudo": ("libclang-rt-14-dev", [
        f"/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-{platform.machine()}.so",
        f"/usr/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-{platform.machine()}.so",
    ]),
}
NAMES = ["glibc", *PEERS, "mimalloc-wiped", "bulkhead", "bulkhead-hardened", "bulkhead-off"]
USUAL = ["glibc", *PEERS, "bulkhead", "bulkhead-hardened"]
BASE = "mimalloc"


def library_folders() -> list[str]:
    """Where Debian and others keep libraries, those of this machine's kind first."""
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    return [f"/usr/lib/{triplet}", f"/lib/{triplet}", "/usr/local/lib", "/usr/lib64", "/usr/lib"]


def find_peer(patterns: list[str]) -> str | None:
    """The path of the first file that fits; of versions the newest."""
    for pattern in patterns:
        places = [pattern] if pattern.startswith("/") else [f"{folder}/{pattern}" for folder in library_folders()]
        for place in places:
            found = sorted(glob.glob(place))
            if found:
                return found[-1]
    return None


def find(name: str, root: Path, build: Path) -> tuple[Allocator | None, str]:
    """The allocator of that name, or None and why it is missing."""
    if name == "glibc":
        # Preloaded too: a program linked with another allocator would use that.
        return Allocator(name, "libc.so.6"), ""
    if name in PEERS:
        package, patterns = PEERS[name]
        path = find_peer(patterns)
        return (Allocator(name, path), "") if path else (None, f"not installed (Debian: {package})")
    if name == "mimalloc-wiped":
        wiped = build / "bench" / "libwiped.so"
        return (Allocator(name, str(wiped.resolve())), "") if wiped.exists() else (None, f"there is no {wiped}; it takes libmimalloc2.0")
    own = (root / "build-off" if name == "bulkhead-off" else build) / "libbulkhead.so"
    environment = {"BULKHEAD_PROFILE": "hardened"} if name == "bulkhead-hardened" else {}
    return (Allocator(name, str(own.resolve()), environment), "") if own.exists() else (None, f"there is no {own}")


def is_loaded(allocator: Allocator) -> bool:
    """Whether the library gets into a program: the loader only warns if not."""
    run = subprocess.run(["cat", "/proc/self/maps"], env=clean_environment(LD_PRELOAD=allocator.library),
                         capture_output=True, text=True, check=False)
    library = allocator.library
    wanted = str(Path(library).resolve()) if library.startswith("/") else library
    return run.returncode == 0 and wanted in run.stdout
