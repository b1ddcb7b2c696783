"""Training runs of transformers' Trainer: all weights, and a LoRA adapter through peft.

training.safetensors (and lora.safetensors, which trains on the same rows):
  input_ids int64 [rows, time], lengths int64 [rows], loss_mask uint8 [rows, time]   rows in the order they are trained on
  losses, grad_norms, rates fp64 [steps]   mean over the targets of a step; norm before clipping; rate of the step
  final.<parameter>                        weights after the last step, by the names of Hugging Face (of PEFT in lora)
  merged_logits fp32                       lora: logits on the batch of expected.safetensors, adapter merged into the base
Micro-batch m is rows [m * ROWS, (m + 1) * ROWS), a step is ACCUMULATION of them.
"""

import json
import shutil
import tempfile

import peft
import torch
import transformers
from transformers.loss.loss_utils import ForCausalLMLoss

STEPS, ACCUMULATION, ROWS, TIME = 20, 2, 3, 20


def make_rows(ids_below, seed):
    """Every second micro-batch has few targets: a mean over micro-batches of their means would be far off."""
    generator = torch.Generator().manual_seed(seed)
    count = STEPS * ACCUMULATION * ROWS
    ids = torch.randint(3, ids_below, (count, TIME), generator=generator)
    lengths = torch.randint(5, TIME + 1, (count,), generator=generator)
    chance = torch.rand(count, TIME, generator=generator)
    few = (torch.arange(count) // ROWS % ACCUMULATION == 1)[:, None]
    mask = chance < torch.where(few, 0.15, 0.8)
    ids[:, 0] = 2
    ids[::7, 3] = 0  # the pad id inside the text is a token like any other
    places = torch.arange(TIME)[None]
    ids[places >= lengths[:, None]] = 0
    mask[(places >= lengths[:, None]) | (places == 0)] = False
    mask[torch.arange(count), lengths - 1] = True  # every row has a target
    return {"input_ids": ids, "lengths": lengths, "loss_mask": mask.to(torch.uint8)}


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows["lengths"])

    def __getitem__(self, row):
        length = self.rows["lengths"][row]
        ids, mask = self.rows["input_ids"][row, :length], self.rows["loss_mask"][row, :length].bool()
        return {"input_ids": ids, "labels": torch.where(mask, ids, -100)}


def collate(examples):
    def padded(key, value):
        return torch.nn.utils.rnn.pad_sequence([e[key] for e in examples], batch_first=True, padding_value=value)
    ids, labels = padded("input_ids", 0), padded("labels", -100)
    lengths = torch.tensor([len(e["input_ids"]) for e in examples])
    attention = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}


class RecordingTrainer(transformers.Trainer):
    def __init__(self, *arguments, decay_everything=False, **named):
        self.records, self.decay_everything = [], decay_everything
        super().__init__(*arguments, **named)

    def log(self, logs, start_time=None):
        if "grad_norm" in logs:
            self.records.append([logs["loss"], logs["grad_norm"], logs["learning_rate"]])

    def get_decay_parameter_names(self, model):
        if self.decay_everything:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)


def train(model, rows, settings, mean_of_means=False, decay_everything=False):
    """Losses, norms, rates [steps], and the trained weights by name. Changes the model."""
    vocabulary = model.get_output_embeddings().weight.shape[0]

    # The loss over all targets of a step divided by their number. Most models do that by themselves; the image-text model
    # of transformers would average its micro-batches.
    def loss_of_step(outputs, labels, num_items_in_batch=None):
        return ForCausalLMLoss(outputs.logits, labels, vocabulary, num_items_in_batch=num_items_in_batch)

    def loss_of_micro_batches(outputs, labels, num_items_in_batch=None):
        return ForCausalLMLoss(outputs.logits, labels, vocabulary) / ACCUMULATION

    with tempfile.TemporaryDirectory() as scratch:
        arguments = transformers.TrainingArguments(
            output_dir=scratch, use_cpu=True, per_device_train_batch_size=ROWS, gradient_accumulation_steps=ACCUMULATION,
            max_steps=STEPS, train_sampling_strategy="sequential", optim="adamw_torch", logging_steps=1,
            save_strategy="no", report_to=[], disable_tqdm=True, dataloader_num_workers=0, remove_unused_columns=False,
            **settings)
        trainer = RecordingTrainer(
            model=model, args=arguments, train_dataset=Rows(rows), data_collator=collate, decay_everything=decay_everything,
            compute_loss_func=loss_of_micro_batches if mean_of_means else loss_of_step)
        trainer.train()
    losses, norms, rates = torch.tensor(trainer.records, dtype=torch.float64).T.contiguous()
    assert len(losses) == STEPS
    return losses, norms, rates


def largest_move(a, b):
    return max((a[name] - b[name]).abs().max().item() for name in b)


def floors_of(moved_runs, run):
    """How far losses, norms and weights move when the start does: the farthest of several runs."""
    losses, norms, _, weights = run
    eps = torch.finfo(torch.float32).eps
    # Coins can leave a number where it was: at least a unit in the last place of the largest.
    floors = {"loss_abs": eps * losses.max().item(), "grad_norm_rel": eps,
              "weights_abs": eps * max(tensor.abs().max().item() for tensor in weights.values())}
    for moved_losses, moved_norms, _, moved_weights in moved_runs:
        moves = {"loss_abs": (moved_losses - losses).abs().max().item(),
                 "grad_norm_rel": ((moved_norms - norms) / norms).abs().max().item(),
                 "weights_abs": largest_move(moved_weights, weights)}
        floors = {key: max(floor, moves[key]) for key, floor in floors.items()}
    return floors


def text_weights(model, is_text):
    return {name: p.detach().clone() for name, p in model.named_parameters() if is_text(name)}


def clipped_steps(run, settings):
    biting = (run[1] > settings["max_grad_norm"]).sum().item()
    assert 4 <= biting <= STEPS - 4, f"clipping bites on {biting} steps; the norms are {run[1].tolist()}"
    return biting


def full_run(load, moved_by_one_ulp, is_text, rows, settings, coins):
    """load() gives a fresh model. -> tensors of training.safetensors, floors, what each detail moves."""
    def run(model, **options):
        records = train(model, rows, {**settings, **options.pop("settings", {})}, **options)
        return (*records, text_weights(model, is_text))

    result = run(load())
    floors = floors_of([run(moved_by_one_ulp(load(), coin)) for coin in coins], result)
    floors["clipped_steps"] = clipped_steps(result, settings)
    details = {
        "mean_over_all_targets": run(load(), mean_of_means=True),
        "clipping": run(load(), settings={"max_grad_norm": 0.0}),
        "weight_decay": run(load(), settings={"weight_decay": 0.0}),
        "no_decay_of_norms": run(load(), decay_everything=True),
        "warm_up": run(load(), settings={"warmup_steps": 0}),
        "decay_of_rate": run(load(), settings={"lr_scheduler_type": "constant_with_warmup", "lr_scheduler_kwargs": {}}),
        "beta2": run(load(), settings={"adam_beta2": 0.98}),
    }
    moves = {name: largest_move(other[3], result[3]) for name, other in details.items()}
    losses, norms, rates, weights = result
    tensors = rows | {"losses": losses, "grad_norms": norms, "rates": rates}
    return tensors | {f"final.{name}": value for name, value in weights.items()}, floors, moves


def peft_name(name):
    return name.replace(".default.", ".")


def make_adapter(load, options, base_name, folder, seed):
    """A PEFT folder with matrices that are nowhere zero."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", **options)
    model = peft.get_peft_model(load(), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.3 / parameter.shape[1] ** 0.5, generator=generator)
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        config.base_model_name_or_path = None  # a path; peft would look there
        model.save_pretrained(scratch)
        folder.mkdir()
        shutil.copyfile(f"{scratch}/adapter_model.safetensors", folder / "adapter_model.safetensors")
        written = json.loads(open(f"{scratch}/adapter_config.json").read())
    written["base_model_name_or_path"] = base_name
    if isinstance(written["target_modules"], list):
        written["target_modules"].sort()  # a set: in any order
    (folder / "adapter_config.json").write_text(json.dumps(written, indent=2) + "\n")


def lora_run(load, moved_by_one_ulp, logits_of, logits_moved, rows, batch, settings, folder, coins):
    """From the adapter in `folder`. -> tensors of lora.safetensors, floors, what each detail moves."""
    def run(base, change=None, coin=None, **options):
        model = peft.PeftModel.from_pretrained(base, folder, is_trainable=True)
        if coin is not None:
            model = moved_by_one_ulp(model, coin)
        if change:
            change(model)
        records = train(model, rows, {**settings, **options})
        weights = {peft_name(name): p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            merged = logits_of(model.merge_and_unload().eval(), batch)
        return (*records, weights), merged

    result, merged = run(load())
    moved = [run(load(), coin=coin) for coin in coins]
    floors = floors_of([records for records, _ in moved], result)
    floors["clipped_steps"] = clipped_steps(result, settings)
    floors["merged_logits_abs"] = max(logits_moved(of_moved, merged, batch["lengths"]) for _, of_moved in moved)

    def drop_scale(model):
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.scaling["default"] = 1.0

    def drop_b(model):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.zero_()

    details = {"scale": run(load(), drop_scale), "initial_adapter": run(load(), drop_b),
               "weight_decay": run(load(), weight_decay=0.0)}
    moves = {name: largest_move(other[3], result[3]) for name, (other, _) in details.items()}
    # Measured on the logits: the merged model without the adapter at all.
    with torch.no_grad():
        moves["adapter_in_merged_logits"] = logits_moved(logits_of(load(), batch), merged, batch["lengths"])
    losses, norms, rates, weights = result
    for row, length in enumerate(batch["lengths"].tolist()):
        merged[row, length:] = 0
    tensors = {"losses": losses, "grad_norms": norms, "rates": rates, "merged_logits": merged}
    return tensors | {f"final.{name}": value for name, value in weights.items()}, floors, moves
