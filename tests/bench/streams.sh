#!/usr/bin/env bash
# streams.sh [SECONDS [STREAMS ...]]: answers a minute, CPU time an answer and peak memory for 1, 2, 4, 8, 16 streams that
# share one model, against a copy of the model for each; a Markdown table. Model: INTERNVL_MODEL, else models/nano. Wants a
# quiet machine; only the CPU times say something on another.
set -eu
. "$(dirname "$0")/../../pipelines/prepare.sh"
prepare_to_run
model=${INTERNVL_MODEL:-$root/models/nano}
seconds=${1:-15}
shift || true
[ $# -gt 0 ] || set -- 1 2 4 8 16

measure() {
  "$build/tests/bench/streams" "$model" "$1" "$seconds" "$2"
}
field() {
  sed -n "s/.*\"$1\": \([0-9.]*\).*/\1/p" <<<"$2"
}
echo "| streams | one model, answers/min | copies, answers/min | ratio | one model, CPU-ms an answer | copies | one model, MB | copies |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
for n in "$@"; do
  shared=$(measure "$n" share)
  copies=$(measure "$n" copies)
  a=$(field answers_per_minute "$shared") b=$(field answers_per_minute "$copies")
  ratio=$(awk "BEGIN { printf \"%.2f\", $a / $b }")
  echo "| $n | $a | $b | $ratio | $(field cpu_ms_an_answer "$shared") | $(field cpu_ms_an_answer "$copies") |" \
    "$(field peak_mb "$shared") | $(field peak_mb "$copies") |"
done
