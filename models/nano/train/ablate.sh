#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# ablate.sh STATE-DIR CLIPS [ROWS]: short runs from nothing, all alike but for one part of the recipe each, and what they know of held-out CLIPS.
# Two runs at a time. PYTHON can be set, and PARTS, those to leave out.
set -eu
here=$(dirname "$(readlink -f "$0")")
python=${PYTHON:-python3} state=$1 clips=$2 rows=${3:-4000}
export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TOP_PAD_=268435456
one() {
    off=$1 dir=$state/$1
    mkdir -p "$dir/model"
    cp "$here"/../*.json "$here"/../*.txt "$dir/model"
    [ -s "$dir/score" ] && return
    NANO_OFF=$off "$python" "$here/train.py" --model "$dir/model" --state "$dir" --rows "$rows" --images $((rows * 5)) --pace $((40000 / rows)) --workers 1
    "$python" "$here/train.py" --model "$dir/model" --state "$dir" --export "$dir/model" --last
    "$python" "$here/evaluate.py" "$clips" --model "$dir/model" --limit 100 > "$dir/score.new"
    mv "$dir/score.new" "$dir/score"
}
if [ "${4:-}" = one ]; then
    one "$5"
    exit
fi
for part in ${PARTS:-nothing dense warm pack square jpeg filter deep muon white pages}; do
    echo "$part"
done | xargs -P 2 -I{} sh "$0" "$state" "$clips" "$rows" one {}
for d in "$state"/*/; do
    printf '%-10s' "$(basename "$d")"
    awk '$1 == "all" { printf " %s %s", $2, $3 }' "$d/score"
    echo
done
