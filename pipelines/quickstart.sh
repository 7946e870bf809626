#!/usr/bin/env bash
# quickstart.sh [VIDEO-OR-URI] [PROMPT]: builds, then prints timed captions of the video.
# Without VIDEO it makes a clip whose content is known: 2 s of SMPTE bars, 2 s of a white ball on black, 2 s of blue.
set -eu
. "$(dirname "$0")/prepare.sh"

# shellcheck disable=SC2086
prepare_packages $packages_build $packages_run
prepare_build
prepare_environment

model=${INTERNVL_MODEL:-$root/models/nano}
video=${1:-}
prompt=${2:-Describe this video.}
if [ -z "$video" ]; then
  video=$build/quickstart.mp4
  [ -f "$video" ] || bash "$root/pipelines/make-clip.sh" "$video"
fi
case $video in
  *://*) uri=$video ;;
  *) uri=file://$(readlink -f "$video") ;;
esac

captions=$(mktemp)
trap 'rm -f "$captions"' EXIT
gst-launch-1.0 -q uridecodebin uri="$uri" ! internvl name=v model-path="$model" prompt="$prompt" ! fakesink \
  v.text_src ! webvttenc ! filesink location="$captions"
cat "$captions"
echo "quickstart: $(grep -c -- '-->' "$captions") captions of $uri"
