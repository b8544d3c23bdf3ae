#!/bin/sh
# usage: stats_json.sh TEST_INFO
# Reads what bh_stats_json and bh_heap_stats_json give with a parser and compares
# it with what `TEST_INFO json` has allocated: 20,000,000 bytes in small and
# 10,485,760 bytes in ten large blocks of the default heap, 1000 blocks of 100
# bytes in another. Exit status 77 without python3.
set -eu
command -v python3 > /dev/null || exit 77
"$1" json | python3 -c '
import json
import sys

process, heap = (json.loads(line) for line in sys.stdin)
assert process.pop("version") == heap.pop("version") == 1
assert all(type(v) is int and v >= 0 for v in [*process.values(), *heap.values()]), (process, heap)
small, large = 20_000_000, 10 * 2**20
used = process["used_bytes"]
assert small + large <= used <= (small + large) * 1.13 + 200_000 + heap["used_bytes"], used
assert process["large_count"] == 10 and large <= process["large_bytes"] <= large * 1.13, process
assert process["huge_count"] == process["huge_bytes"] == 0, process
assert used + process["free_slot_bytes"] <= process["open_bytes"] <= process["reserved_bytes"], process
assert process["heap_count"] == 1 and process["thread_count"] == 1, process
assert process["page_count"] > heap["page_count"] >= 1 and process["segment_count"] >= 1, (process, heap)
assert heap["used_count"] == 1000 and 100_000 <= heap["used_bytes"] <= 112_000, heap
assert heap["large_count"] == heap["large_bytes"] == 0 and heap["page_bytes"] >= heap["used_bytes"], heap
'
