# What `run` and `nightly` share: the checkout, a scratch directory, a python, and timed stages.
# Sourced, not run.
set -euo pipefail
export CI=true PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Runs a command and says how long it took. The first failure ends the script.
stage() {
  local name=$1 start=$SECONDS
  shift
  echo "=== $name: $*"
  "$@" </dev/null
  echo "=== $name: done in $((SECONDS - start)) s"
}

# The first interpreter of the wanted version that starts; a version manager's shim may not.
# $1: a Python expression on `v`, the version.
find_python() {
  local candidate
  for candidate in python3 python3.11 python3.12 python3.13 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3; do
    if "$candidate" -c "import sys; v = sys.version_info[:2]; sys.exit(not ($1))" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# A clean virtual environment, made by $1, in place of the one before.
enter_environment() {
  rm -rf "$scratch/venv"
  "$1" -m venv "$scratch/venv"
  export VIRTUAL_ENV="$scratch/venv" PATH="$scratch/venv/bin:$PATH"
  hash -r
  echo "$(python --version) in $VIRTUAL_ENV"
}
