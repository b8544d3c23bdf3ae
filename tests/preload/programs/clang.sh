# shellcheck shell=sh
# As gcc.sh, with clang and clang++.

# shellcheck source-path=SCRIPTDIR source=gcc.sh
. "$(dirname "$2")/gcc.sh"

run() {
    build_project clang clang++
    compile_library_heavy clang++
}
