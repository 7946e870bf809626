#!/usr/bin/env bash
# make-clip.sh OUT.mp4: six seconds of H.264 whose content is known, made with GStreamer's own elements:
#   0-2 s  a red circle moves left to right on a blue background
#   2-4 s  a green square moves up on a white background
#   4-6 s  a yellow star grows on a black background
set -eu
out=$1
frames=$(mktemp -d)
trap 'rm -rf "$frames"' EXIT

frame() { # NUMBER BACKGROUND SHAPE
  printf '<svg xmlns="http://www.w3.org/2000/svg" width="640" height="480"><rect width="640" height="480" fill="%s"/>%s</svg>' \
    "$2" "$3" >"$frames/$(printf %03d "$1").svg"
}
for i in $(seq 0 49); do
  frame "$i" '#0000ff' "<circle cx='$((100 + i * 9))' cy='240' r='70' fill='#ff0000'/>"
  frame $((50 + i)) '#ffffff' "<rect x='260' y='$((340 - i * 6))' width='120' height='120' fill='#00a000'/>"
  # A five-pointed star of radius 1, scaled.
  frame $((100 + i)) '#000000' "<path transform='translate(320 240) scale($((50 + i * 3)))' fill='#ffff00'
    d='M0,-1 .225,-.309 .951,-.309 .363,.118 .588,.809 0,.382 -.588,.809 -.363,.118 -.951,-.309 -.225,-.309z'/>"
done
gst-launch-1.0 -q multifilesrc location="$frames/%03d.svg" caps=image/svg+xml,framerate=25/1 ! rsvgdec \
  ! videoconvert ! video/x-raw,format=I420 ! x264enc speed-preset=veryfast ! h264parse ! mp4mux ! filesink location="$out"
