#!/usr/bin/env bash
# check_format.sh [--fix] [FILE...]: is every C++ file of ours (or each FILE) formatted as .clang-format says? --fix
# formats them. The tool is $CLANG_FORMAT, else the pinned one that third_party/fetch.sh keeps.
set -euo pipefail
cd "$(dirname "$0")/../.."
mode=(--dry-run --Werror)
if [ "${1:-}" = --fix ]; then
  mode=(-i)
  shift
fi
tool=${CLANG_FORMAT:-}
if [ -z "$tool" ]; then
  tool=$(third_party/fetch.sh --no-torch 2>/dev/null | sed -n 's/^CLANG_FORMAT=//p')
fi
[ -x "$tool" ] || { echo "skipped: the pinned clang-format is not here"; exit 77; }

files=("$@")
for file in "${files[@]}"; do
  case $file in *.h | *.cc | *.cu) ;; *) echo "$file is not a C++ file"; exit 1 ;; esac
done
if [ ${#files[@]} -eq 0 ]; then
  mapfile -t files < <(find configs data model trainer tests \( -name '*.h' -o -name '*.cc' -o -name '*.cu' \) | sort)
fi
[ ${#files[@]} -gt 0 ] || { echo "no sources found"; exit 1; }
if ! found=$("$tool" "${mode[@]}" "${files[@]}" 2>&1); then
  sed -nE 's/^([^: ]+):[0-9]+:[0-9]+: .*/\1/p' <<<"$found" | sort | uniq -c | sed -E 's/^ *([0-9]+) (.*)/\2: \1 places/'
  echo "format them with: tests/lint/check_format.sh --fix"
  exit 1
fi
echo "${#files[@]} files are formatted"
