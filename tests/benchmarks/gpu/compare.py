"""Training speed and memory of gemma-sft beside TRL's SFTTrainer, on the same rows of the same model. README.md has the rules."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path.insert(0, str(HERE))
from hugging_face_row import ROWS  # noqa: E402

# name: preset, LoRA rank, precisions
CASES = {
    "gemma-2b-full": ("gemma-2b", 0, ("bf16", "bf16_mixed")),
    "gemma-2b-lora": ("gemma-2b", 16, ("bf16", "bf16_mixed")),
    "gemma-2-2b-full": ("gemma-2-2b", 0, ("bf16", "bf16_mixed")),
    "gemma-3-1b-full": ("gemma-3-1b", 0, ("bf16", "bf16_mixed")),
    "gemma-7b-lora": ("gemma-7b", 16, ("bf16",)),
}
TINY_CASES = {"tiny-gemma-3-full": ("tiny-gemma-3", 0, ("fp32",)), "tiny-gemma-3-lora": ("tiny-gemma-3", 4, ("fp32",))}
SPEC_TFLOPS = 989.5  # dense bf16 of an H100 or H200 SXM
RATE = 1e-5
# Most that the mean of the timed steps' losses may differ by, relative: rounding, not another computation.
LOSS_TOLERANCE = {"fp32": 1e-3, "bf16_mixed": 5e-3, "bf16": 2e-2}
SEARCH_PART = 0.4  # most of a case's time that the search for micro-batches may take, where there is a limit


def parse():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="set by run.sh")
    parser.add_argument("--commit", default="unknown", help="set by run.sh")
    parser.add_argument("--libraries", default="", help="set by run.sh: where our programs find theirs")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="models of toy size and few steps: does it run?")
    parser.add_argument("--cases", default="", help="of %s; default: all" % ", ".join(CASES))
    parser.add_argument("--precisions", default="", help="of bf16, bf16_mixed, fp32; default: the case's own")
    parser.add_argument("--rows", default="sdpa,sdpa+compile,sdpa+liger,sdpa+cce", help="of %s" % ", ".join(ROWS))
    parser.add_argument("--set", choices=("dense", "natural"), default="dense",
                        help="dense: rows of --length, all targets; natural: rows of unlike length, prompts masked")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--step-tokens", type=int, default=65536, help="of one optimizer step")
    parser.add_argument("--batches", default="1,2,4,8,16", help="micro-batches tried, for each side on its own")
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--launches", type=int, default=4, help="processes of each side, in order A B B A")
    parser.add_argument("--minutes", type=float, default=0,
                        help="begin no new launch after so many; each case gets an equal part; 0: no limit")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="default: results/DATE-GPU")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.length, arguments.step_tokens, arguments.batches = 64, 256, "2,4"
        arguments.warm_up, arguments.steps, arguments.launches = 2, 4, 2
        arguments.rows = "sdpa,eager"
    cases = TINY_CASES if arguments.tiny else CASES
    arguments.cases = {name: cases[name] for name in (arguments.cases.split(",") if arguments.cases else cases)}
    arguments.rows = arguments.rows.split(",")
    for row in arguments.rows:
        if row not in ROWS:
            parser.error("--rows: %s is not one of %s" % (row, ", ".join(ROWS)))
    arguments.batches = [int(batch) for batch in arguments.batches.split(",")]
    arguments.deadline = time.time() + 60 * arguments.minutes if arguments.minutes else None
    return arguments


def run(*command, **rest):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True, **rest).stdout


def our_environment(arguments):
    """What our programs run with. The other side's Python must not see these libraries: it has its own."""
    if not arguments.libraries:
        return dict(os.environ)
    before = os.environ.get("LD_LIBRARY_PATH")
    return dict(os.environ, LD_LIBRARY_PATH=arguments.libraries + (":" + before if before else ""))


def run_ours(arguments, program, *words):
    return run(arguments.bin / program, *words, env=our_environment(arguments))


def gpu_name(arguments):
    if arguments.device == "cpu":
        return platform.processor() or platform.machine()
    return run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()[0].strip()


class GpuLog:
    """Clocks, power, temperature and memory once a second, as long as it lives."""

    def __init__(self, arguments, path):
        self.process = None
        self.path = path
        if arguments.device == "cuda":
            query = "timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used,utilization.gpu"
            self.process = subprocess.Popen(["nvidia-smi", "--query-gpu=" + query, "--format=csv,noheader,nounits", "-l", "1"],
                                            stdout=open(path, "w", encoding="utf-8"))

    def end(self):
        """Most memory used, in bytes, as NVML counts it; None without a GPU."""
        if self.process is None:
            return None
        self.process.terminate()
        self.process.wait()
        used = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            cells = line.split(",")
            try:
                used.append(float(cells[5]))
            except (IndexError, ValueError):  # cut off, or "[N/A]": not every driver tells
                continue
        return int(max(used) * 2**20) if used else None


def measured_gemm(arguments):
    """TFLOP/s of one large bf16 product, the other yardstick of MFU."""
    size = 512 if arguments.tiny or arguments.device == "cpu" else 16384
    program = (
        "import time, torch\n"
        "d, n = '%s', %d\n"
        "t = torch.bfloat16 if d == 'cuda' else torch.float32\n"
        "a, b = (torch.randn(n, n, device=d, dtype=t) for _ in range(2))\n"
        "wait = torch.cuda.synchronize if d == 'cuda' else (lambda: None)\n"
        "end = time.time() + 0.5\n"
        "while time.time() < end: torch.mm(a, b); wait()\n"
        "best = 1e9\n"
        "for _ in range(5):\n"
        "    wait(); s = time.perf_counter(); torch.mm(a, b); wait(); best = min(best, time.perf_counter() - s)\n"
        "print(2 * n**3 / best / 1e12)\n" % (arguments.device, size))
    return float(run(sys.executable, "-c", program))


def make_model(arguments, work, preset, dtype):
    folder = work / ("%s-%s" % (preset, dtype))
    if folder.exists():
        return folder
    tokenizer = work / "tokenizer"
    if not tokenizer.exists():
        run_ours(arguments, "gemma-sft", "tokenizer", "train", "--corpus", ROOT / "configs/demo/corpus.txt", "--vocab-size", "768",
                 "--output", tokenizer, "--quiet")
    run_ours(arguments, "gemma-sft", "model", "init", "--preset", preset, "--tokenizer", tokenizer, "--output", folder, "--dtype",
             dtype, "--seed", "1", "--quiet")
    return folder


def make_rows(arguments, work, vocabulary, count):
    """Rows of ready-made tokens; ids are drawn as words are, often few and seldom many."""
    draw, rows = random.Random(1), []
    for _ in range(count):
        length = arguments.length
        if arguments.set == "natural":
            length = min(arguments.length, max(16, int(draw.lognormvariate(5.5, 0.9))))
        ids = [2] + [10 + int((vocabulary - 10) ** draw.random()) - 1 for _ in range(length - 1)]
        prompt = 1 if arguments.set == "dense" else max(1, length // 3)
        rows.append((ids, [0] * prompt + [1] * (length - prompt)))
    path = work / ("rows-%d-%s.jsonl" % (vocabulary, arguments.set))
    with open(path, "w", encoding="utf-8") as file:
        for number, (ids, mask) in enumerate(rows):
            json.dump({"id": str(number), "input_ids": ids, "loss_mask": mask}, file)
            file.write("\n")
    return path, [len(ids) for ids, _ in rows]


def our_launch(arguments, work, case, batch, recompute):
    """(result, log) of one `gemma-sft train`, which is killed after the last step: of the final checkpoint and model that it
    would write then, tens of gigabytes, nothing is wanted here."""
    folder = work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    config = work / "run.yaml"
    config.write_text("{}\n", encoding="utf-8")
    settings = {
        "model.base_model": case["model"], "model.max_seq_length": arguments.length, "dataset.data_path": case["rows"],
        "dataset.format": "tokens", "training.max_steps": arguments.warm_up + arguments.steps, "training.batch_size": batch,
        "training.gradient_accumulation_steps": max(1, case["step_rows"] // batch), "training.learning_rate": RATE,
        "training.lr_scheduler": "constant", "training.weight_decay": 0.01, "training.precision": case["precision"],
        "training.shuffle": "false", "training.activation_checkpointing": "true" if recompute else "false",
        "output.checkpoint_every": 0}
    if case["rank"]:
        settings.update({"lora.rank": case["rank"], "lora.alpha": 2 * case["rank"]})
    command = [arguments.bin / "gemma-sft", "train", "--config", config, "--device", arguments.device, "--output", folder, "--quiet"]
    for key, value in settings.items():
        command += ["--set", "%s=%s" % (key, value)]
    log = work / "ours.log"
    begin = time.time()
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file, env=our_environment(arguments))
    metrics, first, wanted = folder / "metrics.jsonl", None, arguments.warm_up + arguments.steps
    while process.poll() is None:
        written = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        if first is None and written:
            first = time.time() - begin
        if written >= wanted:
            process.kill()
            process.wait()
            break
        time.sleep(0.005 if first is None else 0.2)
    # Whole lines only: it may have died in the middle of one.
    steps = [json.loads(line) for line in metrics.read_text(encoding="utf-8").split("\n")[:-1]] if metrics.exists() else []
    shutil.rmtree(folder, ignore_errors=True)
    if len(steps) < wanted:
        return None, log
    timed = steps[arguments.warm_up:wanted]
    return {"first_step_s": first if first is not None else time.time() - begin,
            "seconds": sum(step["step_seconds"] for step in timed), "losses": [step["loss"] for step in steps],
            "tokens": sum(step["tokens"] for step in timed), "peak_allocated": max(step["peak_memory_bytes"] for step in steps)}, log


def their_launch(arguments, work, case, row, batch, recompute):
    command = [sys.executable, HERE / "hugging_face_row.py", "--row", row, "--model", case["model"], "--rows", case["rows"],
               "--scratch", work, "--device", arguments.device, "--precision", case["precision"], "--lora-rank", case["rank"],
               "--batch", batch, "--accumulation", max(1, case["step_rows"] // batch), "--warm-up", arguments.warm_up, "--steps",
               arguments.steps, "--rate", RATE]
    if recompute:
        command.append("--recompute")
    environment = dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false",
                       PYTHONWARNINGS="ignore")
    log = work / "theirs.log"
    with open(log, "w", encoding="utf-8") as file:
        made = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=file, text=True, env=environment,
                              check=False)
    lines = made.stdout.strip().splitlines()
    if made.returncode != 0 or not lines:
        return None, log
    result = json.loads(lines[-1])
    result["tokens"] = case["timed_tokens"]
    return result, log


def over(until):
    return until is not None and time.time() >= until


def part_of(until, part):
    """When `part` of the time that is left until `until` will be over; None: never, as `until`."""
    now = time.time()
    return None if until is None else now + part * max(0.0, until - now)


def best_shape(arguments, search, launch, until, end):
    """The micro-batch, with or without recomputation, that is fastest in a short run; what was tried goes to `search`. Begins
    no run after `until` once one has worked, and none after `end`."""
    short = argparse.Namespace(**vars(arguments))
    short.warm_up, short.steps = 2, 3
    best = None
    for recompute in (False, True):
        for batch in arguments.batches:
            if over(end) or (best is not None and over(until)):
                break
            result, log = launch(short, batch, recompute)
            rate = result["tokens"] / result["seconds"] if result else None
            search.append({"batch": batch, "recompute": recompute, "tokens_per_s": rate})
            if rate is None:
                search[-1]["why"] = log.read_text(encoding="utf-8", errors="replace")[-300:]
                break  # a larger one will not fit either
            if best is None or rate > best[0]:
                best = (rate, batch, recompute)
    return best[1:] if best else None


def measure(arguments, out, work, case, name, launch, kept):
    """One launch of one side, its log and the GPU's kept."""
    gpu = GpuLog(arguments, out / ("%s.gpu.csv" % name))
    result, log = launch(arguments, *kept)
    nvml = gpu.end()
    shutil.copy(log, out / ("%s.log" % name))
    if result is not None:
        result["nvml_used"] = nvml
        result["tokens_per_s"] = result["tokens"] / result["seconds"]
    return result


def summary(arguments, case, launches, gemm):
    good = [launch for launch in launches if launch]
    if not good:
        return None
    rates = [launch["tokens_per_s"] for launch in good]
    rate = statistics.median(rates)
    flops = rate * case["flops_per_token"] / 1e12
    return {"tokens_per_s": rate, "range": [min(rates), max(rates)], "tflops": flops, "mfu_of_spec": flops / SPEC_TFLOPS,
            "mfu_of_gemm": flops / gemm, "peak_allocated": max(launch.get("peak_allocated") or 0 for launch in good),
            "nvml_used": max(launch.get("nvml_used") or 0 for launch in good),
            "first_step_s": statistics.median(launch["first_step_s"] for launch in good),
            "timed_loss": statistics.mean(good[0]["losses"][-max(1, len(good[0]["losses"]) // 2):])}


def compare(arguments, out, work, name, model, rank, precision, gemm, end):
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    vocabulary = config["vocab_size"]
    step_rows = max(1, arguments.step_tokens // arguments.length)
    rows, lengths = make_rows(arguments, work, vocabulary, step_rows * (arguments.warm_up + arguments.steps))
    flops = float(run_ours(arguments, "training_flops_of", model, rank, *lengths[:512])) / sum(lengths[:512])
    case = {"model": model, "rows": rows, "rank": rank, "precision": precision, "step_rows": step_rows, "flops_per_token": flops,
            "timed_tokens": sum(lengths[step_rows * arguments.warm_up:])}
    sides = {"gemma-sft": lambda a, batch, recompute: our_launch(a, work, case, batch, recompute)}
    rows_here = [row for row in arguments.rows if config["model_type"] in ROWS[row].get("models", (config["model_type"],))]
    for row in rows_here:
        sides[row] = lambda a, batch, recompute, row=row: their_launch(a, work, case, row, batch, recompute)

    def with_own_tokens(launch):
        def short_launch(short, batch, recompute):
            begin = step_rows * short.warm_up
            before = case["timed_tokens"]
            case["timed_tokens"] = sum(lengths[begin:begin + step_rows * short.steps])
            try:
                return launch(short, batch, recompute)
            finally:
                case["timed_tokens"] = before
        return short_launch

    results, search = {}, {}
    search_end = part_of(end, SEARCH_PART)
    for number, (side, launch) in enumerate(sides.items()):
        search[side] = []
        kept = best_shape(arguments, search[side], with_own_tokens(launch), part_of(search_end, 1 / (len(sides) - number)), end)
        results[side] = {"shape": kept, "launches": []}
    order = list(sides)
    for turn in range(arguments.launches):
        for side in order if turn % 2 == 0 else reversed(order):
            kept = results[side]["shape"]
            if kept is None or over(end):
                continue
            label = "%s.%s.%s.%d" % (name, precision, side, turn + 1)
            print("  %s, micro-batch %d, recompute %s" % ((label,) + tuple(kept)), flush=True)
            results[side]["launches"].append(measure(arguments, out, work, case, label, sides[side], kept))
    for side in order:
        results[side]["summary"] = summary(arguments, case, results[side]["launches"], gemm)
    ours = results["gemma-sft"]["summary"]
    for row in rows_here:
        theirs = results[row]["summary"]
        if ours and theirs:
            difference = abs(ours["timed_loss"] - theirs["timed_loss"]) / abs(theirs["timed_loss"])
            results[row]["loss_difference"] = difference
            results[row]["losses_agree"] = difference <= LOSS_TOLERANCE[precision]
    for row in arguments.rows:
        if row not in sides:
            results[row] = {"shape": None, "launches": [], "summary": None, "applies": False}
    return {"case": name, "precision": precision, "flops_per_token": flops, "search": search, "sides": results}


HEADER = ("case", "precision", "side", "micro-batch", "recompute", "real tokens/s", "range", "TFLOP/s", "MFU of spec", "MFU of GEMM",
          "allocated GiB", "NVML GiB", "first step s", "losses agree")


def lines_of(result):
    for side, made in result["sides"].items():
        total = made["summary"]
        if total is None:
            why = "did not run" if made.get("applies", True) else "does not apply"
            yield (result["case"], result["precision"], side, "-", "-", why) + ("-",) * 8
            continue
        agree = {None: "", True: "yes", False: "NO: no speed counts"}[made.get("losses_agree")]
        yield (result["case"], result["precision"], side, str(made["shape"][0]), "yes" if made["shape"][1] else "no",
               "%.0f" % total["tokens_per_s"], "%.0f-%.0f" % tuple(total["range"]), "%.1f" % total["tflops"],
               "%.1f %%" % (100 * total["mfu_of_spec"]), "%.1f %%" % (100 * total["mfu_of_gemm"]),
               "%.2f" % (total["peak_allocated"] / 2**30), "%.2f" % (total["nvml_used"] / 2**30) if total["nvml_used"] else "-",
               "%.1f" % total["first_step_s"], agree)


def write_results(arguments, out, document):
    """results.json and README.md with the table, whose lines are returned."""
    (out / "results.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for result in document["results"]:
        lines += ["| " + " | ".join(cells) + " |" for cells in lines_of(result)]
    heading = "# %s, %s\n\nCommit %s. `run.sh %s`. Measured GEMM: %.1f TFLOP/s.\n\n" % (
        document["gpu"], document["date"], arguments.commit, document["command"], document["gemm_tflops"])
    if arguments.tiny:
        heading += "A dry run with models of toy size: it shows that the command works, and measures nothing.\n\n"
    (out / "README.md").write_text(heading + "\n".join(lines) + "\n", encoding="utf-8")
    return lines


def command_of(words):
    """The options as the user gave them, without what run.sh adds."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in ("--bin", "--commit", "--libraries"):
            kept.append(word)
        skip = word in ("--bin", "--commit", "--libraries")
    return " ".join(kept)


def main():
    arguments = parse()
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu_name(arguments)).strip("-").lower()
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    out = arguments.out or (ROOT / "artifacts" / "gpu-dry-run" if arguments.tiny else HERE / "results" / ("%s-%s" % (date, name)))
    work = ROOT / "artifacts" / "gpu-benchmark"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    out.mkdir(parents=True, exist_ok=True)
    gemm = measured_gemm(arguments)
    document = {"gpu": gpu_name(arguments), "device": arguments.device, "commit": arguments.commit, "date": date,
                "command": command_of(sys.argv[1:]), "gemm_tflops": gemm, "spec_tflops": SPEC_TFLOPS, "set": arguments.set,
                "length": arguments.length, "step_tokens": arguments.step_tokens, "tiny": arguments.tiny, "results": []}
    print("%s, commit %s, GEMM %.1f TFLOP/s" % (document["gpu"], arguments.commit, gemm), flush=True)
    every = [(case, preset, rank, precision) for case, (preset, rank, precisions) in arguments.cases.items()
             for precision in (arguments.precisions.split(",") if arguments.precisions else precisions)]
    for number, (case, preset, rank, precision) in enumerate(every):
        if over(arguments.deadline):
            print("%s %s: NOT RUN: out of time" % (case, precision), flush=True)
            continue
        print("%s %s" % (case, precision), flush=True)
        end = part_of(arguments.deadline, 1 / (len(every) - number))
        model = make_model(arguments, work, preset, "bf16" if precision == "bf16" else "fp32")
        try:
            document["results"].append(compare(arguments, out, work, case, model, rank, precision, gemm, end))
        finally:
            shutil.rmtree(model, ignore_errors=True)  # up to 17 GB, and the next case's does not fit beside it everywhere
        write_results(arguments, out, document)  # a table a case: the machine may stop at any time
    print("\n".join(write_results(arguments, out, document)))
    print("written: %s" % out)
    good = all(made["summary"] or not made.get("applies", True)
               for result in document["results"] for made in result["sides"].values())
    return 0 if good and len(document["results"]) == len(every) else 1


if __name__ == "__main__":
    sys.exit(main())
