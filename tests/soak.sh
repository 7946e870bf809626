#!/usr/bin/env bash
# soak.sh [MINUTES [STREAMS]]: live streams on one model (models/nano, or INTERNVL_MODEL), with random prompts and
# restarts; prints what the video was held up, answers, drops and memory. 30 minutes with 8 streams by default.
set -eu
. "$(dirname "$0")/../pipelines/prepare.sh"
prepare_to_run
exec "$build/tests/soak/soak" "${1:-30}" "${2:-8}" "${INTERNVL_MODEL:-$root/models/nano}"
