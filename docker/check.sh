#!/usr/bin/env bash
# The quick checks of `make check`: two lanes beside each other, every result shown, the exit code says whether all held.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=.venv/bin
[ -x $bin/ruff ] || {
    echo "check: .venv is missing or incomplete; run make setup first" >&2
    exit 1
}
out=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$out"' EXIT

# step NAME COMMAND...: keeps the output, prints it only when the command fails (the tests' last line always)
step() {
    local name=$1 from=$EPOCHREALTIME status=0
    shift
    "$@" >"$out/$name" 2>&1 || status=$?
    local took
    took=$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    if [ "$status" = 0 ]; then
        printf 'check: %-12s ok     %5s s  %s\n' "$name" "$took" "$(tail -n 1 "$out/$name" | cut -c 1-70)"
    else
        touch "$out/failed"
        printf 'check: %-12s FAILED %5s s\n%s\n' "$name" "$took" "$(sed 's/^/    /' "$out/$name")"
    fi
}

types() { step types timeout 300 $bin/mypy; }
style() {
    step format $bin/ruff format --check .
    step lint $bin/ruff check .
    step imports $bin/lint-imports
    if grep -qs '"check"' pbx/__main__.py; then step dialplans $bin/careline check dialplans; fi
    step tests timeout --kill-after=5 300 $bin/python -m pytest -q -m "unit or flows"
}

types &
style &
wait
[ ! -e "$out/failed" ]
