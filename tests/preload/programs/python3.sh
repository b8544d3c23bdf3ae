# shellcheck shell=sh
# CPython with every object from malloc (PYTHONMALLOC=malloc).

run() {
    export PYTHONMALLOC=malloc PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
    record objects python3 "$PT_SCRIPTS/objects.py" "$PT_SCALE"
    record processes python3 "$PT_SCRIPTS/processes.py" "$PT_SCALE"
    expect 3 exit_code python3 -c 'import sys; print([str(i) * 9 for i in range(9999)][-1]); sys.exit(3)'
}
