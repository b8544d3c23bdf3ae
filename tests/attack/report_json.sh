#!/bin/sh
# usage: report_json.sh ATTACK_REPORT
# Reports as JSON, read by a parser: one line, one object, and its members those of
# the bug. Exit status 77 without python3.
set -u
command -v python3 > /dev/null || exit 77
# shellcheck disable=SC3045 # dash has it
ulimit -c 0
report() { # report MODE
    { BULKHEAD_REPORT=json ATTACK_PIPE=9 "$1" "$2" 9> /dev/null; } 2>&1 | sed '/^{/!d'
}
{
    report "$1" json
    report "$1" foreign
} | python3 -c '
import json
import sys

block, foreign = (json.loads(line) for line in sys.stdin)
assert block["bulkhead"] == foreign["bulkhead"] == "ERROR"
assert block["id"] == "double-free" and foreign["id"] == "foreign-free", (block, foreign)
assert block["fatal"] is True and block["culprit"] is True and block["thread"] > 0, block
assert block["address"] == block["block"] and block["offset"] == 0, block
assert block["place"] == "block" and block["state"] == "free", block
assert block["block_size"] == block["usable_size"] == 64, block
assert block["heap_kind"] == "thread" and block["owner"] == "this thread", block
assert int(block["block"], 16) == int(block["page"], 16) + 64 * block["block_index"], block
assert block["block_index"] < block["page_blocks"] and 0 <= block["slot"] < 64, block
assert foreign["place"] == "mapping" and foreign["mapping_name"].endswith("attack_report"), foreign
assert int(foreign["mapping_start"], 16) <= int(foreign["address"], 16) < int(foreign["mapping_end"], 16), foreign
assert foreign["mapping_access"][0] == "r" and "block" not in foreign, foreign
'
