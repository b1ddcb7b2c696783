"""gemma-sft against the Hugging Face stack on this machine's CPU. README.md has the rules.

Two processes at a time: `gemma-sft train` and one trainer of the other side (hugging_face.py). Each takes its first step alone,
which gives the time from the start to it. Then they take turns, and each turn is timed by the clock of this process. Ours is a
plain `gemma-sft train`: it is stopped and continued by signals between its steps, which its metrics.jsonl shows.
"""

import argparse
import atexit
import datetime
import json
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TOKENS = 512
ROWS = 64
RATE, WEIGHT_DECAY = 2e-4, 0.01
VOCABULARIES = {"32k": 32_768, "262k": 262_144}
PRECISIONS = ("fp32", "bf16_mixed", "bf16")
ROWS_OF_THE_OTHER_SIDE = {
    "eager": ("plain", "eager", False),
    "sdpa": ("plain", "sdpa", False),
    "eager+compile": ("plain", "eager", True),
    "sdpa+compile": ("plain", "sdpa", True),
    "TRL": ("trl", "sdpa", False),
}
OURSELVES = "gemma-sft"  # the other side when --other-bin or --other-set is given
# Most that two losses of one step may differ by, relative: rounding of the precision, not of the program.
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16_mixed": 5e-3, "bf16": 2e-2}
# Gemma 3 270M.
WIDTH, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 640, 2048, 18, 4, 1, 256


def flops_of_a_step(vocabulary):
    """What the mathematics asks for: 6 per weight of a matrix and token, 12 per visible pair, head and dimension."""
    block = WIDTH * HEAD_DIM * (2 * HEADS + 2 * KV_HEADS) + 3 * WIDTH * INTERMEDIATE
    weights = LAYERS * block + vocabulary * WIDTH
    pairs = TOKENS * (TOKENS + 1) / 2  # the window is 512 too
    return 6 * weights * TOKENS + 12 * LAYERS * HEADS * HEAD_DIM * pairs


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def make_model(arguments, vocabulary):
    """A Gemma 3 270M with random fp32 weights and `vocabulary` rows; its tokenizer has fewer pieces, and is not used."""
    folder = arguments.work / ("model-%s" % vocabulary)
    if folder.exists():
        return folder
    shutil.rmtree(arguments.work / "tokenizer", ignore_errors=True)
    root = HERE.parent.parent.parent
    gemma_sft = arguments.bin / "gemma-sft"
    run(gemma_sft, "tokenizer", "train", "--corpus", root / "configs/demo/corpus.txt", "--vocab-size", "768", "--output",
        arguments.work / "tokenizer", "--quiet")
    config = arguments.work / "config.json"
    layers = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(LAYERS)]
    config.write_text(json.dumps({
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": VOCABULARIES[vocabulary],
        "hidden_size": WIDTH, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "query_pre_attn_scalar": HEAD_DIM, "sliding_window": 512,
        "max_position_embeddings": 32768, "layer_types": layers, "rms_norm_eps": 1e-6, "initializer_range": 0.02,
        "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0}},
        "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "attention_dropout": 0.0,
        "tie_word_embeddings": True}))
    run(gemma_sft, "model", "init", "--config", config, "--tokenizer", arguments.work / "tokenizer", "--output", folder, "--dtype",
        "fp32", "--seed", "1", "--quiet")
    return folder


def make_rows(arguments, vocabulary):
    """Rows of 512 ids, every one but the first a target. Ids are drawn as words are, often few and seldom many."""
    path = arguments.work / ("rows-%s.jsonl" % vocabulary)
    draw, first = random.Random(1), 10
    with open(path, "w", encoding="utf-8") as file:
        for number in range(ROWS):
            ids = [first + int((VOCABULARIES[vocabulary] - first) ** draw.random()) - 1 for _ in range(TOKENS)]
            json.dump({"id": str(number), "input_ids": ids, "loss_mask": [0] + [1] * (TOKENS - 1)}, file)
            file.write("\n")
    return path


STARTED = []  # processes to end, however this one ends


def end_all(*_signal):
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()
    if _signal:
        sys.exit(128 + _signal[0])


def processor_seconds_of(process):
    """User and system time of all its threads so far."""
    with open("/proc/%d/stat" % process.pid, encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def environment_of(arguments, **more):
    waiting = {"OMP_WAIT_POLICY": arguments.wait} if arguments.wait else {}
    return dict(os.environ, OMP_NUM_THREADS=str(arguments.threads), **waiting, **more)


def peak_of(process):
    """Most memory the process has had resident so far, in bytes."""
    with open("/proc/%d/status" % process.pid, encoding="ascii") as file:
        return int(re.search(r"VmHWM:\s*(\d+) kB", file.read()).group(1)) * 1024


class OtherSide:
    """A trainer of the Hugging Face stack, or the matrix products; started at once."""

    def __init__(self, arguments, trainer, model=None, rows=None, precision="fp32", attention="eager", compiled=False):
        command = [sys.executable, HERE / "hugging_face.py", "--trainer", trainer, "--threads", arguments.threads]
        if trainer != "products":
            command += ["--model", model, "--rows", rows, "--precision", precision, "--attention", attention, "--rate", RATE,
                        "--weight-decay", WEIGHT_DECAY, "--scratch", arguments.work]
        if compiled:
            command.append("--compile")
        environment = environment_of(arguments, HF_HUB_OFFLINE="1", PYTHONWARNINGS="ignore", TRANSFORMERS_VERBOSITY="error",
                                     TOKENIZERS_PARALLELISM="false", TORCHINDUCTOR_CACHE_DIR=str(arguments.work / "compiled"))
        self.log = open(arguments.work / "other_side.log", "w", encoding="utf-8")
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, env=environment, text=True)
        STARTED.append(self.process)

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the other side ended: %s" % pathlib.Path(self.log.name).read_text(encoding="utf-8")[-3000:])
        return json.loads(line)

    def first(self):
        return self.answer()

    def steps(self, count):
        """(seconds, losses)"""
        start = time.time()
        self.process.stdin.write("%d\n" % count)
        self.process.stdin.flush()
        losses = self.answer()
        return time.time() - start, losses


class OurSide:
    """A plain `gemma-sft train`, started at once, held between turns by SIGSTOP."""

    def __init__(self, arguments, model, rows, precision, program, more_settings, name):
        self.folder = arguments.work / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.metrics = self.folder / "metrics.jsonl"
        settings = {
            "model.base_model": model, "model.max_seq_length": TOKENS, "dataset.data_path": rows, "dataset.format": "tokens",
            "training.max_steps": 10**6, "training.batch_size": 1, "training.learning_rate": RATE,
            "training.lr_scheduler": "constant", "training.weight_decay": WEIGHT_DECAY, "training.precision": precision,
            "training.shuffle": "false", "output.checkpoint_every": 0}
        config = arguments.work / "run.yaml"
        config.write_text("{}\n")
        command = [program / "gemma-sft", "train", "--config", config, "--device", "cpu", "--output", self.folder, "--quiet"]
        for key, value in list(settings.items()) + [setting.split("=", 1) for setting in more_settings]:
            command += ["--set", "%s=%s" % (key, value)]
        environment = environment_of(arguments)
        self.log = open(arguments.work / (name + ".log"), "w", encoding="utf-8")
        self.process = subprocess.Popen([str(word) for word in command], stdout=self.log, stderr=self.log, env=environment)
        STARTED.append(self.process)
        self.done = 0
        self.stopped_at = self.row_at = None

    def lines(self):
        if not self.metrics.exists():
            return 0
        return self.metrics.read_bytes().count(b"\n")

    def wait_for(self, count):
        while self.lines() < count:
            if self.process.poll() is not None:
                raise SystemExit("gemma-sft ended: %s" % pathlib.Path(self.log.name).read_text(encoding="utf-8")[-3000:])
            time.sleep(0.004)
        self.row_at = self.metrics.stat().st_mtime
        self.process.send_signal(signal.SIGSTOP)
        self.stopped_at = time.time()
        if self.lines() != count:
            raise SystemExit("a step is too short to be stopped after")
        losses = [json.loads(line)["loss"] for line in self.metrics.read_text(encoding="utf-8").splitlines()[self.done:]]
        self.done = count
        return losses

    def first(self):
        return self.wait_for(1)

    def steps(self, count):
        """(seconds, losses); the time between the last row and the stop belongs to this turn: the next step had begun."""
        already = self.stopped_at - self.row_at
        start = time.time()
        self.process.send_signal(signal.SIGCONT)
        losses = self.wait_for(self.done + count)
        return self.row_at - start + already, losses


def start(side):
    """(the side, its seconds from process start to the end of the first step, losses)"""
    begin = time.time()
    made = side()
    return made, begin, made.first()


def compare(arguments, vocabulary, precision, name):
    """One row: pairs of turns, in alternating order."""
    model, rows = make_model(arguments, vocabulary), make_rows(arguments, vocabulary)
    ours, begin, our_losses = start(lambda: OurSide(arguments, model, rows, precision, arguments.bin, arguments.set, "ours"))
    result = {"vocabulary": vocabulary, "precision": precision, "row": name, "our_first_step_s": ours.row_at - begin,
              "pairs": []}
    if name == OURSELVES:
        program, settings = arguments.other_bin or arguments.bin, arguments.other_set
        theirs, begin, their_losses = start(lambda: OurSide(arguments, model, rows, precision, program, settings, "theirs"))
    else:
        trainer, attention, compiled = ROWS_OF_THE_OTHER_SIDE[name]
        theirs, begin, their_losses = start(
            lambda: OtherSide(arguments, trainer, model, rows, precision, attention, compiled))
    result["their_first_step_s"] = time.time() - begin
    gemm = OtherSide(arguments, "products")
    gemm.first()
    products = []
    for side, losses in ((ours, our_losses), (theirs, their_losses)):
        losses += side.steps(arguments.warm_up)[1]
    for number in range(arguments.pairs):
        turn = {}
        for side in (("ours", "theirs"), ("theirs", "ours"))[number % 2]:
            runner, kept = {"ours": (ours, our_losses), "theirs": (theirs, their_losses)}[side]
            before = processor_seconds_of(runner.process)
            seconds, losses = runner.steps(arguments.steps)
            turn[side + "_s"] = seconds / arguments.steps
            turn[side + "_processor_s"] = (processor_seconds_of(runner.process) - before) / arguments.steps
            kept.extend(losses)
        turn["load_average"] = os.getloadavg()[0]
        result["pairs"].append(turn)
        products.append(gemm.steps(1)[1][0])
    result["our_peak_bytes"], result["their_peak_bytes"] = peak_of(ours.process), peak_of(theirs.process)
    end_all()
    result["gemm_gflops"] = {"fp32": max(p[0] for p in products), "bf16": max(p[1] for p in products)}
    result["our_losses"], result["their_losses"] = our_losses, their_losses
    result["loss_difference"] = max(abs(a - b) / abs(b) for a, b in zip(our_losses, their_losses))
    result["losses_agree"] = result["loss_difference"] <= max(LOSS_TOLERANCE[precision], 1e-4 if name == "TRL" else 0)
    for key, unit in (("ratio", "_s"), ("processor_ratio", "_processor_s")):
        ratios = [turn["theirs" + unit] / turn["ours" + unit] for turn in result["pairs"]]
        result[key] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    for side in ("ours", "theirs"):
        seconds = statistics.median(turn[side + "_s"] for turn in result["pairs"])
        result[side + "_tokens_per_s"] = TOKENS / seconds
        result[side + "_gflops"] = flops_of_a_step(VOCABULARIES[vocabulary]) / seconds / 1e9
    return result


HEADER = ("vocabulary", "precision", "other side", "ratio (min-max)", "of processor time", "tokens/s", "theirs", "peak GiB",
          "theirs", "first step s", "theirs", "% of GEMM", "theirs", "loss difference")


def line_of(result):
    peak = result["gemm_gflops"]["fp32" if result["precision"] == "fp32" else "bf16"]
    ratio, processor = ["%.2f (%.2f-%.2f)" % tuple(result[what][key] for key in ("median", "min", "max"))
                        for what in ("ratio", "processor_ratio")]
    if not result["losses_agree"]:
        ratio = processor = "losses differ"
    return (result["vocabulary"], result["precision"], result["row"], ratio, processor, "%.0f" % result["ours_tokens_per_s"],
            "%.0f" % result["theirs_tokens_per_s"], "%.2f" % (result["our_peak_bytes"] / 2**30),
            "%.2f" % (result["their_peak_bytes"] / 2**30), "%.1f" % result["our_first_step_s"],
            "%.1f" % result["their_first_step_s"], "%.0f" % (100 * result["ours_gflops"] / peak),
            "%.0f" % (100 * result["theirs_gflops"] / peak), "%.1e" % result["loss_difference"])


def print_line(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def machine(arguments):
    import torch
    import transformers
    import trl

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        text = file.read()
    flags = re.search(r"^flags\s*:(.*)", text, re.M).group(1).split()
    pages = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "processor": re.search(r"^model name\s*:\s*(.*)", text, re.M).group(1),
        "family_model_stepping": [re.search(r"^%s\s*:\s*(.*)" % key, text, re.M).group(1)
                                  for key in ("cpu family", "model", "stepping")],
        "instruction_sets": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "cores": os.cpu_count(), "threads": arguments.threads,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": os.uname().release,
        "transparent_huge_pages": pages.read_text().strip() if pages.exists() else "none",
        "versions": {"gemma-sft": run(arguments.bin / "gemma-sft", "--version").strip(), "python": sys.version.split()[0],
                     "torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__},
        "command": "tests/benchmarks/side_by_side/run.sh build/release/bin " + " ".join(arguments.words),
        "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, prog="run.sh BIN_DIR",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--vocabulary", choices=tuple(VOCABULARIES), action="append", help="default: both")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="default: all three")
    parser.add_argument("--row", choices=tuple(ROWS_OF_THE_OTHER_SIDE), action="append", help="default: all five")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of turns (default 5)")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of a turn (default 2)")
    parser.add_argument("--warm-up", type=int, default=1, help="steps after the first one that are not timed (default 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side (default: all)")
    parser.add_argument("--wait", choices=("active", "passive"), help="how both sides' threads wait for each other "
                        "(OMP_WAIT_POLICY; default: as each does by itself, ours spinning for a moment, theirs for long)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting for our side")
    parser.add_argument("--other-bin", type=pathlib.Path, metavar="DIR", help="another gemma-sft as the other side")
    parser.add_argument("--other-set", action="append", default=[], metavar="KEY=VALUE",
                        help="gemma-sft with another setting as the other side")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file; rows that it has are replaced, others kept")
    arguments = parser.parse_args()
    arguments.words = [word for word in sys.argv[1:] if word not in ("--bin", "--work", str(arguments.bin), str(arguments.work))]

    rows_asked_for = arguments.row or ([OURSELVES] if arguments.other_bin or arguments.other_set else ROWS_OF_THE_OTHER_SIDE)

    atexit.register(end_all)
    signal.signal(signal.SIGTERM, end_all)
    about = machine(arguments)
    print(json.dumps(about, indent=1), flush=True)
    print_line(HEADER)
    print_line(["---"] * len(HEADER))
    results = []
    for vocabulary in arguments.vocabulary or VOCABULARIES:
        for precision in arguments.precision or PRECISIONS:
            for name in rows_asked_for:
                results.append(compare(arguments, vocabulary, precision, name) | {"machine": about})
                print_line(line_of(results[-1]))
                if arguments.output:
                    keep(arguments.output, results[-1])
    if not all(result["losses_agree"] for result in results):
        sys.exit("losses differ: no speed counts")


def keep(path, result):
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    key = lambda row: [row[name] for name in ("vocabulary", "precision", "row")]
    kept = [row for row in kept if key(row) != key(result)] + [result]
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
