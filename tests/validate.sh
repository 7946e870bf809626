#!/usr/bin/env bash
# Runs the tests of models and kernels under the Vulkan validation layer with synchronisation checks, and fails on any
# message. Arguments: names of tests (default: the suites model and kernels).
set -eu
. "$(dirname "$0")/../pipelines/prepare.sh"

# shellcheck disable=SC2086
prepare_packages $packages_build $packages_run vulkan-validationlayers
prepare_build -Dwerror=true
prepare_environment

what=(--suite model --suite kernels)
[ $# -gt 0 ] && what=("$@")

settings=$(mktemp -d)
trap 'rm -rf "$settings"' EXIT
cat >"$settings/vk_layer_settings.txt" <<'END'
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.log_filename = stdout
khronos_validation.report_flags = error,warn
khronos_validation.enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT
khronos_validation.enable_message_limit = false
END
export VK_LAYER_SETTINGS_PATH=$settings VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation

# The loader goes on without a layer that it can't find: make sure that it is there.
if ! VK_LOADER_DEBUG=layer "$build/tests/kernels/internvl-kernels" --kernel no-such-kernel 2>&1 |
  grep -q 'Insert instance layer "VK_LAYER_KHRONOS_validation"'; then
  say "The validation layer isn't loaded"
  exit 1
fi

# New layers have other names for these settings, and a message about that (VALIDATION-SETTINGS): old ones know only these.
status=0
meson test -C "$build" --no-rebuild --logbase validation --timeout-multiplier 5 "${what[@]}" || status=$?
messages=$(grep -E 'VUID-|UNASSIGNED-|SYNC-HAZARD|Validation (Error|Warning|Performance)' "$build/meson-logs/validation.txt" |
  grep -v VALIDATION-SETTINGS | sort | uniq -c | sort -rn || true)
if [ -n "$messages" ]; then
  printf '%s\n' "$messages" | cut -c 1-600 | head -n 40
  status=1
fi
echo "validation: $(printf '%s' "$messages" | grep -c . || true) kinds of messages, tests exit with $status"
exit $status
