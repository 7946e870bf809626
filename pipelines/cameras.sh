#!/usr/bin/env bash
# cameras.sh [URI...]: several cameras on one model, without a display. Prints an answer about each, as JSON lines with the
# camera's stream-id, until it is stopped. The weights are in memory once, and all cameras are batched together; no frame
# waits for the model, the newest chunk of each camera wins. Without URIs it makes four test pictures; INTERNVL_MODEL and
# PROMPT name another model and question. For example: cameras.sh rtsp://10.0.0.1/stream rtsp://10.0.0.2/stream
set -eu
. "$(dirname "$0")/prepare.sh"

prepare_to_run

model=${INTERNVL_MODEL:-$root/models/nano}
prompt=${PROMPT:-Describe this video.}
pipeline=()
n=0
add() { # SOURCE...
  pipeline+=("$@" ! internvl "name=v$n" "model-path=$model" "prompt=$prompt" policy=live chunk-duration=2000000000
    chunk-size=4 max-tokens=32 reuse-threshold=2 on-error=passthrough ! fakesink sync=false
    "v$n.text_src" ! application/x-json ! fdsink sync=false)
  n=$((n + 1))
}
if [ $# -eq 0 ]; then
  for pattern in ball smpte checkers-8 snow; do
    add videotestsrc is-live=true "pattern=$pattern" ! video/x-raw,width=320,height=240,framerate=10/1
  done
else
  for uri; do
    add uridecodebin "uri=$uri" ! videoconvert
  done
fi
exec gst-launch-1.0 -q "${pipeline[@]}"
