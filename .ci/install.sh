#!/bin/sh
# Makes .venv and installs this project with its pinned versions; does nothing when that was done
# for the same pyproject.toml and constraints.txt. Called by the Makefile.
#
#   sh .ci/install.sh [EXTRA]      EXTRA of pyproject.toml: all, test, dev, ...; `core` for none
#   PYTHON=python3.12 sh .ci/install.sh
set -eu

extra="${1:-all}"
python="${PYTHON:-python3}"
stamp=".venv/.installed-$extra"
log=".venv/install.log"

fail() {
    echo >&2
    printf '%s\n' "$@" >&2
    exit 1
}

if [ ! -e .venv ]; then
    command -v "$python" >/dev/null 2>&1 ||
        fail "Python is missing: there is no '$python' on the PATH. Install Python 3.11 or newer."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python is too old: '$python' is $("$python" --version 2>&1), 3.11 or newer is needed." \
            "If a newer one is installed under another name: make install PYTHON=python3.12"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "Python's venv module is missing from '$python'." \
            "On Debian and Ubuntu: sudo apt install python3-venv, then run this again."
    echo "Making .venv with $("$python" --version 2>&1)"
    "$python" -m venv .venv || { rm -rf .venv; fail "python -m venv failed, see above."; }
fi
.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "The folder .venv is there, but its Python does not run or is older than 3.11." \
        "Delete .venv and run this again."
.venv/bin/python -c 'import pip' 2>/dev/null || .venv/bin/python -m ensurepip >/dev/null

# The folder's own name is part of it: an installation points back here, and folders get moved.
wanted=$({ pwd; cat pyproject.toml constraints.txt setup.py; } | cksum)
# Every other extra holds `all`.
for done in "$stamp" $([ "$extra" != all ] || echo .venv/.installed-*); do
    [ "$(cat "$done" 2>/dev/null)" != "$wanted" ] || exit 0
done

what="the project with what '$extra' needs, in pinned versions,"
echo "Installing $what into .venv: a few minutes and 2 GB the first time"
if ! command -v nvidia-smi >/dev/null && ! command -v uv >/dev/null; then
    echo "  No GPU is seen. If pip fetches PyTorch for CUDA (many packages of nvidia, gigabytes), stop"
    echo "  it, put uv on the PATH (pip install uv), and run this again: uv takes the build for CPUs."
fi
[ "$extra" = core ] && target=. || target=".[$extra]"
install() {
    # uv knows where PyTorch keeps its builds, and takes the small one where it sees no GPU.
    if command -v uv >/dev/null 2>&1; then
        uv pip install --no-progress --python .venv/bin/python --torch-backend auto \
            -c constraints.txt -e "$target" && return
        echo "uv failed, pip is tried"
    fi
    .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
        -c constraints.txt -e "$target"
}
install >"$log" 2>&1 &
pip=$!
trap 'kill "$pip" 2>/dev/null || true; exit 130' INT TERM
# What pip is doing: how many packages it has looked up, and its last line, without addresses.
progress() {
    packages=$(grep -c '^ *Collecting ' "$log" || true)
    last=$(grep -E '^ *(Collecting|Downloading|Using cached|Building|Preparing|Installing) ' "$log" |
        tail -n 1 | sed -e 's#[a-z+]*://[^ ]*/##' -e 's/^ *//' | cut -c 1-90)
    case "$last" in
        "Installing collected"*) echo "installing what was downloaded" ;;
        *) echo "package $packages: ${last:-looking for it}" ;;
    esac
}
seconds=0
while kill -0 "$pip" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    [ $((seconds % 15)) -ne 0 ] || echo "  $seconds s: $(progress)"
done
if ! wait "$pip"; then
    # Addresses are left out: they say where packages come from, and may hold a password.
    sed 's#[a-z+]*://[^ ]*#(address)#g' "$log" | grep -v '^Looking in' | tail -n 15 >&2
    fail "Installing failed; the lines above are the end of $log." \
        "It goes on where it stopped when you run the same command again."
fi
echo "$wanted" >"$stamp"
echo "Installed in $seconds s"
