#!/usr/bin/env bash
# Runs the scheduler's and the element's tests under the thread sanitizer, and fails on any report. Arguments: names of
# tests (default: those that have more than one thread at work).
set -eu
. "$(dirname "$0")/../pipelines/prepare.sh"

# shellcheck disable=SC2086
prepare_packages $packages_build $packages_run
build=$root/build-tsan
prepare_build -Dwerror=true -Db_sanitize=thread -Db_lundef=false
prepare_environment

what=(engine fair reuse lost constrained import device-picture element questions sampling settings pipeline pipeline-real
  dmabuf replay)
[ $# -gt 0 ] && what=("$@")

gcc -shared -fPIC -O1 -fsanitize=thread -o "$build/glib-locks.so" "$root/tests/tsan/glib-locks.c" $(pkg-config --cflags glib-2.0)
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
# Slices go from thread to thread inside GLib.
export G_SLICE=always-malloc TSAN_OPTIONS="suppressions=$root/tests/tsan/suppressions log_path=$reports/report exitcode=0 ignore_noninstrumented_modules=0"
status=0
# Only the tests are preloaded: meson itself needn't be.
meson test -C "$build" --no-rebuild --timeout-multiplier 20 --print-errorlogs \
  --wrapper "env LD_PRELOAD=$(gcc -print-file-name=libtsan.so):$build/glib-locks.so" "${what[@]}" || status=$?
# Ours are the reports whose accesses both were made by our code itself: what is freed inside GLib or GStreamer was handed
# over by their locks and reference counts, which are not seen.
cat "$reports"/report.* 2>/dev/null | awk '
  function done() { if (text != "" && (race ? !others : ours)) printf "%s", text; text = ""; race = others = ours = want = 0 }
  /^WARNING: ThreadSanitizer/ { done(); text = $0 "\n"; race = /data race/; next }
  text == "" { next }
  /^==================/ { done(); next }
  { text = text $0 "\n" }
  /(engine|gst-plugin)\/[a-z\/-]*\.c:/ { ours = 1 }
  /^  (Atomic )?([Rr]ead|[Ww]rite|Previous) .*of size/ || /^  Previous (atomic )?(read|write) of size/ { want = 1; next }
  want && /^    #/ && !/libtsan/ { want = 0; if ($0 !~ /(engine|gst-plugin)\/[a-z\/-]*\.c:/) others = 1 }
  END { done() }' >"$build/tsan-reports.txt" || true
n=$(grep -c '^WARNING: ThreadSanitizer' "$build/tsan-reports.txt" || true)
# Its own trouble ends a program with 0, too.
if cat "$reports"/report.* 2>/dev/null | grep 'ThreadSanitizer' | grep -vE 'WARNING|SUMMARY|reported'; then
  status=1
fi
[ "$n" -eq 0 ] || { head -n 300 "$build/tsan-reports.txt"; status=1; }
echo "tsan: $n reports, tests exit with $status"
exit $status
