#!/bin/sh
# test-consumer.sh CONSUMER: it prints what is said with times, asks what is typed, ends with the video, and tells errors.
set -eu
dir=$(mktemp -d)
app=
trap 'rm -rf "$dir"; [ -z "$app" ] || kill $app' EXIT
echo '{}' >"$dir/config.json"
export INTERNVL_MODEL="$dir" FAKE_INTERNVL_ANSWER='{n} frames'

wait_for() { # PATTERN
  until grep -q "$1" "$dir/out"; do
    kill -0 $app || { cat "$dir/out" "$dir/err"; return 1; }
    sleep 0.1
  done
}

echo "1..4"
mkfifo "$dir/questions"
"$1" testbin://video 'What is it?' <"$dir/questions" >"$dir/out" 2>"$dir/err" &
app=$!
exec 3>"$dir/questions"
wait_for '^0\.0 s - [1-9][.0-9]* s: [0-9]* frames$'
echo "ok 1 - an answer"
echo 'And now?' >&3
wait_for ' s, asked "And now?": [0-9]* frames$'
echo "ok 2 - a reply"
kill $app
wait $app || app=
exec 3>&-

"$1" testbin://video,num-buffers=60 </dev/null >"$dir/out"
grep -q '^0\.0 s - 2\.0 s: [0-9]* frames$' "$dir/out" || printf "not "
echo "ok 3 - ends with the video"
! "$1" "$dir/nothing.mp4" </dev/null >/dev/null 2>"$dir/err" && [ -s "$dir/err" ] || printf "not "
echo "ok 4 - an error"
