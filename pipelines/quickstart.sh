#!/usr/bin/env bash
# quickstart.sh [VIDEO-OR-URI] [PROMPT]: builds, then prints timed captions of the video.
# Without VIDEO it makes a clip whose content is known (make-clip.sh). INTERNVL_MODEL names another model.
set -eu
. "$(dirname "$0")/prepare.sh"

prepare_to_run

model=${INTERNVL_MODEL:-$root/models/nano}
if [ ! -f "$model/config.json" ] && [ -z "${INTERNVL_MODEL:-}" ]; then
  model=$root/tests/golden/models/qwen2-ln-orig
  say "models/nano is not trained yet: a small model with random weights speaks instead, and its words mean nothing."
fi
video=${1:-}
prompt=${2:-Describe this video.}
if [ -z "$video" ]; then
  video=$build/quickstart.mp4
  [ -f "$video" ] || bash "$root/pipelines/make-clip.sh" "$video"
fi
case $video in
  *://*) uri=$video ;;
  *)
    [ -f "$video" ] || { say "quickstart: there is no file $video"; exit 1; }
    uri=file://$(readlink -f "$video" | sed 's/%/%25/g; s/ /%20/g; s/#/%23/g; s/?/%3f/g')
    ;;
esac

captions=$(mktemp)
trap 'rm -f "$captions"' EXIT
# Chunks of two seconds, four frames each: what models/nano was trained on.
gst-launch-1.0 -q uridecodebin uri="$uri" ! internvl name=v model-path="$model" prompt="$prompt" \
    chunk-duration=2000000000 chunk-size=4 max-tokens=64 ! fakesink \
  v.text_src ! webvttenc ! filesink location="$captions"
grep -v '^WEBVTT' "$captions" | sed '/^$/N;/^\n$/D'
echo "quickstart: $(grep -c -e '-->' "$captions") captions of $uri"
