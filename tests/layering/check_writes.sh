#!/usr/bin/env bash
# check_writes.sh BUILD_DIR: every byte that the programs write goes through data/files/file_system.cc, as the object
# files show: none of the others needs a function of libc or of the standard library that changes a file system. What is
# allowed beside it is in the list below, with the reason.
set -euo pipefail
cd "$1"
allowed='
data/files/input_file.cc open          reads
trainer/cli/output.cc write            standard output and error
trainer/cli/program.cc open            /dev/null in place of a closed standard stream
model/cpu_memory.cc mmap               memory without a file
trainer/run/run_directory.cc open      read-only, for flock
trainer/tunix/download_job.cc open     read-only, to know the folder again
'
libc='open|open64|openat|openat64|creat|creat64|fopen|fopen64|freopen|freopen64|fdopen|tmpfile|write|pwrite|pwrite64'
libc+='|writev|pwritev|sendfile|copy_file_range|ftruncate|ftruncate64|truncate|truncate64|fallocate|posix_fallocate'
libc+='|rename|renameat|renameat2|unlink|unlinkat|remove|rmdir|mkdir|mkdirat|mkdtemp|mkstemp|mkostemp|link|linkat'
libc+='|symlink|symlinkat|mmap|mmap64|msync|fsync|fdatasync|sync|system|popen'
standard='_ZNSt14basic_ofstream.*|_ZNSt13basic_fstream.*|_ZNSt10filesystem(6rename|6remove|10remove_all|16create_director'
standard+='|18create_director|4copy|9copy_file|11resize_file|14create_symlink|24create_directory_symlink'
standard+='|16create_hard_link|11permissions|12copy_symlink).*|_ZNSt10filesystem15last_write_time.*chrono.*'

mapfile -t objects < <(find configs data model trainer -name '*.cc.o' | sort)
# "folder/CMakeFiles/target.dir/path.cc.o" is made from "folder/path.cc".
found=$(for object in "${objects[@]}"; do
  source=$(sed -E 's|CMakeFiles/[^/]+\.dir/||; s|\.o$||' <<<"$object")
  nm -u "$object" | sed -nE "s/^ +U ($libc|$standard)(@.*)?\$/\1/p" | sed "s|^|$source |"
done | sort -u)
grep -q '^data/files/file_system.cc fsync$' <<<"$found" || { echo "$1: the object files could not be read"; exit 1; }
wrong=0
while read -r source function; do
  [ "$source" != data/files/file_system.cc ] || continue
  if ! grep -q "^$source $function " <<<"$allowed"; then
    echo "$source uses $function, past the file layer (data/files/file_system.h)"
    wrong=1
  fi
done <<<"$found"
[ $wrong -eq 0 ] || exit 1
echo "${#objects[@]} object files write through the file layer alone"
