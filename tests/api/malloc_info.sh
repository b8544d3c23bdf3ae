#!/bin/sh
# usage: malloc_info.sh TEST_INFO
# Reads the XML of malloc_info with a parser and compares its figures with what
# `TEST_INFO xml` has allocated: 20,000,000 bytes in small and 10,485,760 bytes
# in ten large blocks. Exit status 77 without python3.
set -eu
command -v python3 > /dev/null || exit 77
"$1" xml | python3 -c '
import sys
import xml.etree.ElementTree as tree

root = tree.parse(sys.stdin).getroot()
assert root.tag == "malloc" and root.get("version") == "bulkhead-1", root.attrib
size = {(e.tag, e.get("type")): int(e.get("size")) for e in root if e.get("size")}
mmap = root.find("total[@type=\"mmap\"]")
small, large = 20_000_000, 10 * 2**20
used = size["total", "used"]
assert small + large <= used <= (small + large) * 1.13 + 200_000, used
assert int(mmap.get("count")) == 10 and large <= int(mmap.get("size")) <= large * 1.13, mmap.attrib
assert used + size["total", "rest"] == size["system", "current"] <= size["system", "reserved"], size
assert 0 < size["system", "control"] < used * 0.2, size
assert int(root.find("segments").get("count")) >= 1 and int(root.find("pages").get("count")) > 10
'
