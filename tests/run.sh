#!/usr/bin/env bash
# Installs what is needed, builds, and runs every test on the software Vulkan driver. --full adds the full-size check
# of InternVL2_5-1B's shapes (minutes, 6 GB of memory).
set -eu
. "$(dirname "$0")/../pipelines/prepare.sh"

suites=(--no-suite full)
[ "${1:-}" = --full ] && suites=()

# shellcheck disable=SC2086
prepare_packages $packages_build $packages_run
prepare_build -Dwerror=true
prepare_environment

status=0
meson test -C "$build" --no-rebuild --print-errorlogs "${suites[@]}" || status=$?

# One line that a person and a machine can read.
count() { grep -o "\"result\": \"$1\"" "$build/meson-logs/testlog.json" | wc -l; }
passed=$(($(count OK) + $(count EXPECTEDFAIL)))
skipped=$(count SKIP)
total=$(wc -l <"$build/meson-logs/testlog.json")
echo "tests: $passed passed, $((total - passed - skipped)) failed, $skipped skipped"
exit $status
