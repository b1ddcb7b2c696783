#!/usr/bin/env bash
# run.sh [OPTION]...: the job service, in the foreground until Ctrl-C or SIGTERM. run.sh keys create --project NAME: a key.
#
# Makes its Python environment first (environment.sh). OPTION: those of `run.sh serve --help`. Unless --runner is given, the
# runner's environment is made too (JAX and google-tunix) and jobs are trained with it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/environment.sh")
export PYTHONPATH=$here PYTHONPYCACHEPREFIX=${python%/bin/python}/pycache
case ${1:-serve} in
  keys | quota | openapi | -h | --help | --version) exec "$python" -m gateway "$@" ;;
  serve) shift || true ;;
esac
runner=()
case " $* " in
  *" --runner "* | *" --runner="* | *" --help "* | *" -h "*) ;;
  *)
    device=()
    case " $* " in
      *" --accelerator tpu"* | *" --accelerator=tpu"*) device=(--tpu) ;;
      *" --accelerator gpu"* | *" --accelerator=gpu"*) device=(--gpu) ;;
    esac
    runner=(--runner "$("$here/runner/environment.sh" ${device[@]+"${device[@]}"}) -m runner")
    ;;
esac
exec "$python" -m gateway serve ${runner[@]+"${runner[@]}"} "$@"
