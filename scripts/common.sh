# Sourced by the scripts in this folder: where things are, how to say something, which LibTorch to
# use. Nothing here changes the system.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
DEPS="$ROOT/.deps"
VENV="$DEPS/venv"
TORCH_VERSION=2.13.0

say() { printf '%s\n' "$*" >&2; }
die() {
  printf '%s: error: %s\n' "$(basename "$0")" "$1" >&2
  shift
  for hint in "$@"; do printf 'hint: %s\n' "$hint" >&2; done
  exit 1
}

# Prints "MAJOR.MINOR" of the LibTorch in folder $1 (the one that holds include/ and lib/); fails
# when there is none.
torch_version_of() {
  local header
  for header in "$1/include/torch/headeronly/version.h" "$1/include/torch/version.h" \
    "$1/include/torch/csrc/api/include/torch/version.h"; do
    [ -r "$header" ] || continue
    awk '$2 == "TORCH_VERSION_MAJOR" { major = $3 }
         $2 == "TORCH_VERSION_MINOR" { minor = $3 }
         END { if (major == "" || minor == "") exit 1; print major "." minor }' "$header" && return 0
  done
  return 1
}

# Succeeds when folder $1 holds a LibTorch that this project can be built with.
is_usable_torch() {
  local version
  [ -f "$1/include/ATen/ATen.h" ] && [ -f "$1/lib/libtorch_cpu.so" ] || return 1
  version="$(torch_version_of "$1")" || return 1
  [ "${version%%.*}" -gt 2 ] || { [ "${version%%.*}" -eq 2 ] && [ "${version#*.}" -ge 13 ]; }
}

# Prints the LibTorch that scripts/setup left behind or LORA_TORCH_DIR names; fails when none is
# usable.
find_torch() {
  local found
  if [ -n "${LORA_TORCH_DIR:-}" ]; then
    is_usable_torch "$LORA_TORCH_DIR" && printf '%s\n' "$LORA_TORCH_DIR"
    return
  fi
  for found in "$VENV"/lib/python3*/site-packages/torch; do
    if is_usable_torch "$found"; then
      printf '%s\n' "$found"
      return 0
    fi
  done
  return 1
}
