# For the benchmarks beside it: `record NAME SIDES... OPTIONS...` is one `compressnet bench` on a CPU, kept as
# results/NAME.json. Sourced; changes to the project's folder.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

record() {
    name=$1
    shift
    compressnet bench --device cpu --threads 1,all --no-memory --force --record "$name" "$@"
}
