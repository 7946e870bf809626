# Sourced by quickstart.sh and tests/run.sh: installs what is missing and builds into build/.
# prepare_packages NAME...: Debian packages, skipped when all are there.
# prepare_build: configures once, compiles what changed.
# prepare_to_run: both, with all packages, and the environment.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build

packages_build="gcc g++ meson ninja-build pkg-config glslang-tools libvulkan-dev libglib2.0-dev libjson-glib-dev
  libsentencepiece-dev libprotobuf-dev libabsl-dev libxxhash-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  libgstreamer-plugins-bad1.0-dev libxkbcommon-x11-dev libwayland-dev libgstrtspserver-1.0-dev
  libavformat-dev libavcodec-dev libavutil-dev libswscale-dev libcairo2-dev"
packages_run="mesa-vulkan-drivers gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav"

say() {
  printf '%s\n' "$*" >&2
}

prepare_packages() {
  local missing=() package sudo=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { say "Missing packages, and neither root nor sudo: ${missing[*]}"; return 1; }
    sudo=(sudo)
  fi
  say "Installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq >/dev/null &&
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      "${missing[@]}" >/dev/null || { say "apt-get could not install: ${missing[*]}"; return 1; }
}

prepare_build() {
  if [ ! -f "$build/build.ninja" ]; then
    meson setup "$build" "$root" "$@" >"$root/.meson.log" 2>&1 || { cat "$root/.meson.log" >&2; return 1; }
    rm -f "$root/.meson.log"
  fi
  local log
  log=$(ninja -C "$build" 2>&1) || { printf '%s\n' "$log" | tail -n 40 >&2; return 1; }
}

# What the programs and gst-launch need to find the built plugin and nothing else of ours.
prepare_environment() {
  export GST_PLUGIN_PATH=$build/gst-plugin${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}
  export LD_LIBRARY_PATH=$build/engine${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export INTERNVL_CACHE=${INTERNVL_CACHE:-$build/cache}
}

prepare_to_run() {
  # shellcheck disable=SC2086
  prepare_packages $packages_build $packages_run
  prepare_build
  prepare_environment
}
