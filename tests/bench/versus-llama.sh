#!/usr/bin/env bash
# internvl and llama.cpp side by side on the software Vulkan driver, in a Debian sid root where llama.cpp and its Vulkan
# backend are packages. Both run on the same files of seeded weights, in turns; a row is the ratio of their times, least,
# median and most over the pairs. llama.cpp's CPU backend runs as well: what people without a GPU would use.
#
#   sudo tests/bench/versus-llama.sh [--quick] [--pairs N] [--root DIR] [--rows LIST] [--shape SIZE] [--out FILE]
#
#   --quick    two pairs, short prompts, the slow rows once, no stream: about twelve minutes on two quiet cores, once root,
#              build and models are there
#   --pairs N  pairs a row (5)
#   --root DIR where the root is or shall be made by debootstrap (default: internvl-sid in the user's cache folder)
#   --rows     names with commas (default: all): tile prefill decode-f16 decode-bf16 decode-q4 batch start start-text stream
#   --shape    1B, or tiny to try the script out
#   --out FILE writes FILE.md and FILE.json (default: versus-llama in the current folder)
#   --cores N  of the side by side (default: all)
#   --vectors BITS  what the software driver computes with, for both sides (LP_NATIVE_VECTOR_WIDTH): 512 where the
#              processor has AVX-512, else the driver's own choice; 256 switches that off
#
# Needs root, debootstrap, some 8 GB of disk and 6 GB of memory. Nothing else should run meanwhile.
set -eu

src=$(cd "$(dirname "$0")/../.." && pwd)
pairs=5 quick=0 rows='' shape=1B out=$PWD/versus-llama cores=$(nproc) vectors=''
fs=${XDG_CACHE_HOME:-$HOME/.cache}/internvl-sid
all=tile,prefill,decode-f16,decode-bf16,decode-q4,batch,start,start-text,stream

die() { printf '%s\n' "versus-llama: $*" >&2; exit 1; }
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1; pairs=2 ;;
    --pairs | --root | --rows | --shape | --out | --cores | --vectors)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in
        --pairs) pairs=$2 ;; --root) fs=$2 ;; --rows) rows=$2 ;; --shape) shape=$2 ;; --cores) cores=$2 ;;
        --vectors) vectors=$2 ;;
        --out) out=$(realpath -m "$2") ;;
      esac
      shift ;;
    -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) die "no such option: $1" ;;
  esac
  shift
done
case $pairs$cores in *[!0-9]* | '') die "--pairs and --cores are numbers" ;; esac
[ "$pairs" -ge 1 ] || die "--pairs must be at least 1"
[ -n "$rows" ] || { rows=$all; [ $quick -eq 0 ] || rows=${all%,stream}; }
for row in ${rows//,/ }; do
  case ,$all, in *",$row,"*) ;; *) die "no row $row; there are $all" ;; esac
done
# The library can't choose this, the host's environment being its own; llama.cpp's CPU backend takes AVX-512 by itself.
if [ -z "$vectors" ]; then
  vectors=512
  for flag in avx512f avx512bw avx512dq avx512vl; do grep -qw $flag /proc/cpuinfo || vectors=''; done
fi
case $vectors in '' | 128 | 256 | 512) ;; *) die "--vectors is 128, 256 or 512" ;; esac
case $shape in 1B | tiny) ;; *) die "--shape is 1B or tiny" ;; esac
[ "$(id -u)" -eq 0 ] || die "must run as root: debootstrap, mounts and chroot need it"

# ---- the root ----

if [ ! -x "$fs/usr/bin/apt-get" ]; then
  command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
  mkdir -p "$fs"
  debootstrap --variant=minbase sid "$fs" http://deb.debian.org/debian >"$fs.log" 2>&1 || { tail -n 20 "$fs.log" >&2; exit 1; }
fi
fs=$(realpath "$fs")
mounted=()
work=$(mktemp -d)
leave() {
  for m in "${mounted[@]}"; do umount "$m" 2>/dev/null || umount -l "$m" || true; done
  rm -rf "$work"
}
trap leave EXIT
trap 'exit 130' INT TERM
bind() { # WHAT WHERE OPTIONS: unless it is there
  mkdir -p "$fs$2"
  mountpoint -q "$fs$2" && return
  mount --bind ${3:+-o "$3"} "$1" "$fs$2"
  mounted=("$fs$2" "${mounted[@]}")
}
bind /proc /proc
bind /dev /dev
bind "$src" /internvl/src
[ "$(stat -c %d:%i "$src")" = "$(stat -c %d:%i "$fs/internvl/src")" ] || die "$fs/internvl/src holds another tree: umount it"
[ ! -f /etc/resolv.conf ] || cp -L /etc/resolv.conf "$fs/etc/resolv.conf"

inside() { chroot "$fs" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 INTERNVL_CACHE=/internvl/cache \
  OMP_NUM_THREADS="$cores" ${vectors:+LP_NATIVE_VECTOR_WIDTH=$vectors} "$@"; }

packages="llama.cpp-tools llama.cpp-tools-extra libggml0-backend-vulkan mesa-vulkan-drivers gcc g++ meson ninja-build
  pkg-config glslang-tools libvulkan-dev libglib2.0-dev libjson-glib-dev libsentencepiece-dev libxxhash-dev jq time"
# shellcheck disable=SC2086
if ! inside dpkg-query -W $packages >/dev/null 2>&1; then
  inside apt-get update -qq >"$work/log" 2>&1 &&
    inside env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >>"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; die "apt-get could not install: $packages"; }
fi
if [ ! -f "$fs/internvl/build/build.ninja" ]; then
  inside meson setup /internvl/build /internvl/src -Dplugin=disabled -Dmedia=disabled >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; die "meson failed"; }
fi
inside ninja -C /internvl/build engine/internvl-bench tests/bench/write-model >"$work/log" 2>&1 ||
  { tail -n 30 "$work/log" >&2; die "the build failed"; }

# ---- models: one set of values, in the types that each side has ----

models=/internvl/models/$shape
have() { [ -f "$fs$models/$1" ]; }
for type in f16 bf16; do
  have $type/done && continue
  inside /internvl/build/tests/bench/write-model "$shape" $type gguf $models/$type || die "no model written"
  touch "$fs$models/$type/done"
done
if ! have q4/model.gguf; then
  mkdir -p "$fs$models/q4"
  # A file name that isn't complete never gets the right name.
  inside llama-quantize $models/f16/model.gguf $models/q4/part Q4_0 "$cores" >"$work/log" 2>&1 ||
    { tail -n 5 "$work/log" >&2; die "llama-quantize failed"; }
  mv "$fs$models/q4/part" "$fs$models/q4/model.gguf"
fi
side=448
[ "$shape" = 1B ] || side=112
{ printf 'P6\n%d %d\n255\n' $side $side; yes abcdefghijk | head -c $((3 * side * side)); } >"$fs$models/picture.ppm"

# ---- measuring: each prints seconds (less is better) ----

prompt=1024 tokens=16
[ $quick -eq 0 ] || prompt=256
cpu=$(seq -s, 0 $((cores - 1)))

timed() { inside taskset -c "$cpu" /usr/bin/time -f '\nTIME %e %U %S %M' "$@"; }

ours() { # MODEL WEIGHTS ROW [OPTION...]: seconds, for what llama.cpp counts
  local model=$1 weights=$2 row=$3
  shift 3
  timed /internvl/build/engine/internvl-bench --model "$models/$model" --weights "$weights" --rows "$row" --repeats 1 \
    --json /internvl/out.json "$@" >"$work/ours" 2>&1 || { cat "$work/ours" >&2; return 1; }
  inside jq -r --arg row "$row" '.rows[$row].seconds' /internvl/out.json
}

vulkan=(GGML_VK_VISIBLE_DEVICES=0 GGML_VK_DISABLE_COOPMAT=1)
llama() { # vulkan|cpu PROGRAM ARGUMENT...: its output
  local how=$1 log=$work/llama
  shift
  local -a environment=()
  [ "$how" = cpu ] || environment=("${vulkan[@]}")
  timed env "${environment[@]}" "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; return 1; }
}
llama_bench() { # vulkan|cpu MODEL PROMPT GENERATE
  llama "$1" llama-bench -m "$models/$2/model.gguf" -p "$3" -n "$4" -r 1 -t "$cores" -ngl 99 -o jsonl || return 1
  sed -n 's/.*"avg_ns": \([0-9]*\).*/\1/p' "$work/llama" | awk '{ printf "%.6f\n", $1 / 1e9 }'
}
# The text model stays on the CPU, whose time isn't counted: the encoder alone is.
llama_tile() { # vulkan|cpu
  local where=--mmproj-offload
  [ "$1" = vulkan ] || where=--no-mmproj-offload
  llama "$1" llama-mtmd-cli -m $models/f16/model.gguf --mmproj $models/f16/mmproj.gguf --image $models/picture.ppm -p x -n 1 \
    --temp 0 -t "$cores" -c 2048 -ngl 0 --no-op-offload $where || return 1
  sed -n 's/.*encod.* in \([0-9]*\) ms.*/\1/p' "$work/llama" | head -n 1 | awk '{ printf "%.3f\n", $1 / 1e3 }'
}
wall() { sed -n 's/^TIME \([0-9.]*\) .*/\1/p' "$work/$1"; }
rss() { sed -n 's/^TIME .* \([0-9]*\)$/\1/p' "$work/$1"; }
llama_start() { # vulkan|cpu
  local where=--mmproj-offload
  [ "$1" = vulkan ] || where=--no-mmproj-offload
  llama "$1" llama-mtmd-cli -m $models/f16/model.gguf --mmproj $models/f16/mmproj.gguf --image $models/picture.ppm \
    -p 'What is this?' -n 1 --temp 0 -t "$cores" -c 2048 -ngl 99 --no-warmup $where || return 1
  rss llama >"$work/rss-$1"
  wall llama
}
llama_start_text() { # vulkan|cpu
  llama "$1" llama-completion -m $models/f16/model.gguf -p 'What is this?' -n 1 --temp 0 -t "$cores" -c 2048 -ngl 99 -no-cnv \
    --no-warmup </dev/null || return 1
  wall llama
}

results=$work/results # row TAB side TAB seconds
: >"$results"
note() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$results"; }
say() { printf '%s\n' "$*" >&2; }

# ROW COUNT OURS VULKAN CPU: commands. Both warm up by themselves; starts, where that is the point, are preceded by one
# that isn't counted and fills the shader caches (which the rows before did for llama.cpp).
compare() {
  local row=$1 count=$2 first=1 i side command value
  shift 2
  case $row in start*) first=0 ;; esac
  for i in $(seq $first "$count"); do
    for side in ours vulkan cpu; do
      case $side in ours) command=$1 ;; vulkan) command=$2 ;; cpu) command=$3 ;; esac
      [ "$i" -gt 0 ] || [ $side = ours ] || continue
      value=$($command) || die "$row: $side failed"
      [ -n "$value" ] || die "$row: no time in the output of $side"
      [ "$i" -eq 0 ] || note "$row" $side "$value"
      say "$row, $side$([ "$i" -gt 0 ] || echo ', not counted'): $value s"
    done
  done
}
wanted() { case ,$rows, in *",$1,"*) return 0 ;; *) return 1 ;; esac; }

say "one-minute load before: $(cut -d' ' -f1 /proc/loadavg)"
once=$pairs
[ $quick -eq 0 ] || once=1
! wanted tile || compare tile "$once" 'ours f16 auto tiles-1' 'llama_tile vulkan' 'llama_tile cpu'
! wanted prefill || compare prefill "$pairs" "ours f16 auto prefill-$prompt" "llama_bench vulkan f16 $prompt 0" \
  "llama_bench cpu f16 $prompt 0"
for type in f16 bf16; do
  ! wanted decode-$type || compare decode-$type "$pairs" "ours $type auto decode-0x1 --decode-tokens $tokens" \
    "llama_bench vulkan $type 0 $tokens" "llama_bench cpu $type 0 $tokens"
done
! wanted decode-q4 || compare decode-q4 "$pairs" "ours f16 q4 decode-0x1 --decode-tokens $tokens" \
  "llama_bench vulkan q4 0 $tokens" "llama_bench cpu q4 0 $tokens"
if wanted batch; then
  for i in $(seq "$once"); do
    note batch ours "$(ours f16 auto decode-0x16 --decode-tokens $tokens)"
    note batch alone "$(ours f16 auto decode-0x1 --decode-tokens $tokens)"
  done
fi
start_ours() { ours f16 auto "$1" >/dev/null && wall ours && rss ours >"$work/rss-ours"; }
if wanted start; then
  compare start "$once" 'start_ours start' 'llama_start vulkan' 'llama_start cpu'
  note memory ours "$(cat "$work/rss-ours")"
  note memory cpu "$(cat "$work/rss-cpu")"
  note memory files "$(($(stat -c %s "$fs$models/f16/model.gguf") / 1024 + $(stat -c %s "$fs$models/f16/mmproj.gguf") / 1024))"
fi
! wanted start-text || compare start-text "$pairs" 'start_ours start-text' 'llama_start_text vulkan' 'llama_start_text cpu'
if wanted stream; then
  chunks=4
  [ $quick -eq 0 ] || chunks=1
  for kind in still overlap apart; do
    note stream $kind "$(ours f16 auto $kind-$chunks | awk -v n=$chunks '{ print $1 / n }')"
  done
  # What llama.cpp's CPU backend takes for such a chunk (4 frames, some 1070 tokens, 16 of an answer), from its parts.
  note stream cpu "$(awk -v t="$(llama_tile cpu)" -v p="$(llama_bench cpu f16 1070 0)" -v d="$(llama_bench cpu f16 0 16)" \
    'BEGIN { print 4 * t + p + d }')"
fi
say "one-minute load after: $(cut -d' ' -f1 /proc/loadavg)"

# ---- the table ----

facts=$(inside dpkg-query -W -f '${Package} ${Version}, ' llama.cpp-tools mesa-vulkan-drivers | sed 's/, $//')
device=$(inside jq -r .device /internvl/out.json)
commit=$(git -c safe.directory='*' -C "$src" rev-parse --short HEAD 2>/dev/null || echo unknown)
model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
awk -F'\t' -v facts="$facts" -v device="$device" -v commit="$commit" -v date="$(date -u +%F)" -v prompt=$prompt -v tokens=$tokens \
  -v cpu="$model, $cores cores" -v shape="$shape" -v json="$out.json" '
  function sorted(row, side, n, i, j, t) {
    n = count[row, side]
    for (i = 1; i <= n; i++) s[i] = value[row, side, i]
    for (i = 2; i <= n; i++) for (j = i; j > 1 && s[j - 1] > s[j]; j--) { t = s[j]; s[j] = s[j - 1]; s[j - 1] = t }
    return n
  }
  function middle(n) { return n % 2 ? s[(n + 1) / 2] : (s[n / 2] + s[n / 2 + 1]) / 2 }
  function median(row, side, n) { n = sorted(row, side); return n ? middle(n) : 0 }
  # THEIRS over OURS, pair by pair.
  function ratio(row, theirs, ours, n, i) {
    n = count[row, theirs] < count[row, ours] ? count[row, theirs] : count[row, ours]
    for (i = 1; i <= n; i++) value["r", "r", i] = value[row, theirs, i] / value[row, ours, i]
    count["r", "r"] = n
    return sorted("r", "r")
  }
  function line(name, goal, row, theirs, ours, scale, n, lo, mid, hi) {
    n = ratio(row, theirs, ours)
    if (!n) return
    lo = s[1] * scale; mid = middle(n) * scale; hi = s[n] * scale
    printf "| %s | %s | %.2f / **%.2f** / %.2f | %.2f s, %.2f s | %d |\n", name, goal, lo, mid, hi, median(row, ours), median(row, theirs), n
    printf "%s\n    { \"row\": \"%s\", \"goal\": \"%s\", \"min\": %.4f, \"median\": %.4f, \"max\": %.4f, \"ours_s\": %.4f, \"theirs_s\": %.4f, \"pairs\": %d }", \
      lines++ ? "," : "", name, goal, lo, mid, hi, median(row, ours), median(row, theirs), n > json
  }
  { count[$1, $2]++; value[$1, $2, count[$1, $2]] = $3 }
  END {
    printf "{ \"date\": \"%s\", \"commit\": \"%s\", \"device\": \"%s\", \"packages\": \"%s\", \"cpu\": \"%s\", \"shape\": \"%s\",\n  \"rows\": [", \
      date, commit, device, facts, cpu, shape > json
    printf "%s, commit %s, %s, %s; %s. InternVL2_5-%s shapes, seeded weights, GGUF.\n\n", date, commit, device, facts, cpu, shape
    print "| row: their time over ours | goal | least / **median** / most | medians: ours, theirs | pairs |"
    print "| --- | --- | --- | --- | --- |"
    line("tile encode f16, llama.cpp Vulkan", "4", "tile", "vulkan", "ours", 1)
    line("tile encode f16, llama.cpp CPU", "1.2", "tile", "cpu", "ours", 1)
    line("prefill " prompt " f16, llama.cpp Vulkan", "2", "prefill", "vulkan", "ours", 1)
    line("prefill " prompt " f16, llama.cpp CPU", "reported", "prefill", "cpu", "ours", 1)
    line("decode f16, llama.cpp Vulkan", "2", "decode-f16", "vulkan", "ours", 1)
    line("decode f16, llama.cpp CPU", "reported", "decode-f16", "cpu", "ours", 1)
    line("decode bf16, llama.cpp Vulkan", "2", "decode-bf16", "vulkan", "ours", 1)
    line("decode bf16, llama.cpp CPU", "reported", "decode-bf16", "cpu", "ours", 1)
    line("decode q4, llama.cpp Vulkan Q4_0", "2", "decode-q4", "vulkan", "ours", 1)
    line("decode q4, llama.cpp CPU Q4_0", "reported", "decode-q4", "cpu", "ours", 1)
    line("batch 16: tokens/s over batch 1", "6", "batch", "alone", "ours", 16)
    line("start to first token with a picture, llama.cpp Vulkan", "2", "start", "vulkan", "ours", 1)
    line("start to first token with a picture, llama.cpp CPU", "2", "start", "cpu", "ours", 1)
    line("start to first token, text, llama.cpp Vulkan", "2", "start-text", "vulkan", "ours", 1)
    line("start to first token, text, llama.cpp CPU", "2", "start-text", "cpu", "ours", 1)
    line("overlapping chunks: with reuse over without", "at most 0.6", "stream", "overlap", "apart", 1)
    line("still camera with a threshold, llama.cpp CPU", "1", "stream", "cpu", "still", 1)
    if (count["memory", "ours"]) {
      printf "| peak memory over bytes of the files | at most 1.25 | **%.2f** (llama.cpp CPU: %.2f) | %.0f MB, %.0f MB | 1 |\n", \
        value["memory", "ours", 1] / value["memory", "files", 1], value["memory", "cpu", 1] / value["memory", "files", 1], \
        value["memory", "ours", 1] * 1.024 / 1000, value["memory", "cpu", 1] * 1.024 / 1000
      printf "%s\n    { \"row\": \"peak memory over bytes of the files\", \"goal\": \"at most 1.25\", \"median\": %.4f, \"theirs\": %.4f }", \
        lines++ ? "," : "", value["memory", "ours", 1] / value["memory", "files", 1], \
        value["memory", "cpu", 1] / value["memory", "files", 1] > json
    }
    printf "\n  ] }\n" > json
  }' "$results" | tee "$out.md"
