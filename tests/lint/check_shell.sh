#!/usr/bin/env bash
# Every shell script parses; where shellcheck is installed, it finds nothing either.
set -euo pipefail
cd "$(dirname "$0")/../.."
mapfile -t files < <({ find bootstrap.sh .ci/run; find configs data model trainer tests third_party -name '*.sh'; } | sort)
for file in "${files[@]}"; do
  bash -n "$file"
done
if command -v shellcheck >/dev/null; then
  shellcheck "${files[@]}"
else
  echo "shellcheck is not here: syntax checked only"
fi
echo "${#files[@]} scripts are fine"
