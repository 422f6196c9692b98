#!/usr/bin/env bash
# Sets up .venv from requirements.lock; `make` calls it before everything. A second run only
# compares a stamp. Settings: PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
WHEELS=.wheels
STAMP=$VENV/set-up
ROS=${ROS_DISTRO:-}

say() { printf 'set-up: %s\n' "$*"; }
die() { printf 'set-up: %s\n' "$*" >&2; exit 2; }

# Everything that the result depends on. A moved repository counts: scripts in .venv name its place.
wanted_stamp() { { pwd; echo "ros=$ROS"; cat requirements.lock setup.py tools/setup.sh; } | cksum; }

# --- Debian packages --------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

# install_packages NAME...: true if they were installed; needs root or passwordless sudo.
install_packages() {
    command -v apt-get >/dev/null || return 1
    as_root true || return 1
    local quick="-o Acquire::Retries=1 -o Acquire::http::Timeout=20"
    say "installing system packages: $*"
    # shellcheck disable=SC2086
    as_root apt-get $quick update -qq >/dev/null 2>&1 || true
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get $quick install -y -qq \
        --no-install-recommends "$@" >/dev/null 2>&1
}

has_library() {
    { ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null; } | grep -qF "$1"
}

open3d_libraries() {
    local missing=()
    has_library libusb-1.0.so.0 || missing+=(libusb-1.0-0)
    has_library libGL.so.1 || missing+=(libgl1)
    has_library libgomp.so.1 || missing+=(libgomp1)
    has_library libEGL.so.1 || missing+=(libegl1)
    [ ${#missing[@]} = 0 ] && return
    install_packages "${missing[@]}" ||
        say "note: Open3D needs ${missing[*]} (sudo apt-get install ${missing[*]}); going on without"
}

# --- Python -----------------------------------------------------------------------------------

python_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

supported() { case $(python_version "$1") in 3.11|3.12) true ;; *) false ;; esac; }

find_python() {
    local candidates=(python3.11 python3.12 python3 python) candidate
    # ROS's Python packages belong to the system's Python, and to no other.
    [ -n "$ROS" ] && candidates=(/usr/bin/python3 "${candidates[@]}")
    [ -n "${PYTHON:-}" ] && candidates=("$PYTHON")
    [ -n "${PYTHON:-}" ] || candidates+=("${HOME:-}"/.pyenv/versions/3.1[12].*/bin/python)
    for candidate in "${candidates[@]}"; do
        if command -v "$candidate" >/dev/null && supported "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Keeps a good .venv: somebody may have put a CPU build of torch in first.
usable_venv() {
    supported $VENV/bin/python && $VENV/bin/python -m pip --version >/dev/null 2>&1 || return 1
    [ -z "${PYTHON:-}" ] || [ "$(python_version "$PYTHON")" = "$(python_version $VENV/bin/python)" ]
}

create_venv() {
    local python version
    if usable_venv; then
        need_compiler $VENV/bin/python
        return
    fi
    python=$(find_python) || die "needs Python 3.11 or 3.12${PYTHON:+, PYTHON=$PYTHON is neither};" \
        "install one (Debian 12, Ubuntu 24.04: sudo apt-get install python3 python3-venv)"
    version=$(python_version "$python")
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        install_packages "python$version-venv" && "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            die "$python has no venv module; sudo apt-get install python$version-venv"
    fi
    need_compiler "$python"
    say "creating $VENV with Python $version ($python)"
    "$python" -m venv --clear ${ROS:+--system-site-packages} $VENV
}

# --- PyBullet: wheels exist for CPython 3.11 only ----------------------------------------------

has_pybullet_wheel() {
    local version
    version=$(sed -n 's/^pybullet==//p' requirements.lock)
    ls "$WHEELS/pybullet-$version-cp312-"*"_$(uname -m).whl" >/dev/null 2>&1
}

# Before anything is made or downloaded: can this machine compile, if it must?
need_compiler() {
    local missing=() include
    [ "$(python_version "$1")" = 3.12 ] && ! has_pybullet_wheel || return 0
    include=$("$1" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    command -v g++ >/dev/null || missing+=(g++)
    [ -e "$include/Python.h" ] || missing+=(python3.12-dev)
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}" ||
        die "PyBullet compiles on Python 3.12 and needs ${missing[*]};" \
            "sudo apt-get install ${missing[*]} (or use Python 3.11: PYTHON=python3.11 make ...)"
}

compile_pybullet() {
    [ "$(python_version $VENV/bin/python)" = 3.12 ] && ! has_pybullet_wheel || return 0
    say "compiling PyBullet for Python 3.12, about five minutes, once; the wheel stays in $WHEELS/"
    # Beside, then renamed: a wheel in $WHEELS is a whole one.
    $VENV/bin/python -m pip wheel --quiet --no-deps --wheel-dir $WHEELS/partial \
        "$(grep '^pybullet==' requirements.lock)"
    mv $WHEELS/partial/pybullet-*.whl $WHEELS/
    rmdir $WHEELS/partial
}

# Lines of requirements.lock that are ROS wheels, or a parser that only they use and that is called
# `lark` as a sourced ROS's own is. Their rosidl_*, rosgraph_msgs and so on are inside, not lines.
ROS_WHEELS='^(ros-|lark-parser==)'

# Where a ROS 2 is sourced its own packages are used, never the wheels; a .venv made without it has
# them still.
drop_ros_wheels() {
    grep -vE "$ROS_WHEELS" requirements.lock >"$1"
    if ls -d $VENV/lib/python3.*/site-packages/ros_wheels_bootstrapper >/dev/null 2>&1; then
        say "removing the ROS wheels: ROS 2 $ROS is sourced"
        $VENV/bin/python -m pip uninstall --quiet --yes --disable-pip-version-check \
            $(grep -E "$ROS_WHEELS" requirements.lock | sed 's/==.*//')
    fi
}

install_lock() {
    local lock=$VENV/requirements.txt
    if [ -n "$ROS" ]; then
        drop_ros_wheels $lock
    elif [ "$(uname -m)" != x86_64 ]; then
        say "note: there are no ROS wheels for $(uname -m): everything but \`decisive ros\` will" \
            "run; for that, install ROS 2 Jazzy, source it, and run this again"
        grep -vE "$ROS_WHEELS" requirements.lock >$lock
    else
        cp requirements.lock $lock
    fi
    mkdir -p $WHEELS
    local quiet=--quiet
    [ ! -t 1 ] || quiet=  # somebody watches: show what is downloaded
    say "installing $(grep -c == $lock) packages of requirements.lock"
    $VENV/bin/python -m pip install $quiet --disable-pip-version-check \
        --find-links $WHEELS --requirement $lock
    $VENV/bin/python -m pip install --quiet --disable-pip-version-check \
        --no-deps --no-build-isolation --editable .
}

[ -f $STAMP ] && [ "$(cat $STAMP)" = "$(wanted_stamp)" ] && exit 0
started=$SECONDS
create_venv
compile_pybullet
open3d_libraries
install_lock
wanted_stamp >$STAMP
say "done in $((SECONDS - started)) s"
