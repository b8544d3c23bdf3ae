# shellcheck shell=sh
# GCC, with cmake and ninja: builds the project and a file that is heavy on the
# C++ library; every object file is compared byte for byte.

prepare() {
    mkdir "$PT_DATA/tree"
    (cd "$PT_ROOT" && tar -cf - --exclude './build*' --exclude ./.git --exclude ./.setup .) | tar -xf - -C "$PT_DATA/tree"
}

run() {
    build_project gcc g++
    compile_library_heavy g++
}

build_project() { # build_project C_COMPILER CXX_COMPILER
    [ -f "$PT_DATA/tree/CMakeLists.txt" ] || die "the project has no CMakeLists.txt"
    tests=OFF
    [ "$PT_SCALE" -eq 1 ] || tests=ON
    # Link-time optimisation names symbols at random, so it is off.
    quiet configure cmake -S "$PT_DATA/tree" -B project -G Ninja -DCMAKE_BUILD_TYPE=Release -DBULKHEAD_TESTS="$tests" \
        -DCMAKE_C_COMPILER="$1" -DCMAKE_CXX_COMPILER="$2" -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF
    quiet build cmake --build project -j 2
    find project -name '*.o' | sort | xargs sha256sum >"$PT_OUT/objects"
    [ "$(wc -l <"$PT_OUT/objects")" -ge 5 ] || die "the project built fewer than five object files"
}

compile_library_heavy() { # compile_library_heavy CXX_COMPILER
    for flags in '-O2' '-O0 -g'; do
        # shellcheck disable=SC2086 # a list of words
        quiet "compile$flags" "$1" -std=c++17 $flags -Wall -Wextra -c -o stl.o "$PT_SCRIPTS/stl.cpp"
        digest <stl.o >"$PT_OUT/stl$flags"
    done
    quiet link "$1" -pthread -o stl stl.o
    record stl.run ./stl "$PT_SCALE"
    # A program with errors: the same messages, the same exit code.
    printf '#include <map>\nint main() { std::map<int, int> m; m.nothing(); return m; }\n' >wrong.cpp
    expect 1 wrong "$1" -std=c++17 -c wrong.cpp
    cp "$PT_LOG/wrong.stderr" "$PT_OUT/wrong.messages"
}
