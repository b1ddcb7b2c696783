"""What llama.cpp's convert_hf_to_gguf.py asks of a model folder, as far as the gguf package has its rules.

Every tensor has a name in GGUF for this architecture, none is missing; tokenizer.model is there (the converter refuses a Gemma 1
without it), its pieces fit the embedding; the special ids are found. A GGUF file of it is written and read back.
"""

import argparse
import json
import logging
import pathlib
import sys

import gguf
from safetensors.numpy import load_file

ARCHITECTURES = {"GemmaForCausalLM": gguf.MODEL_ARCH.GEMMA, "Gemma2ForCausalLM": gguf.MODEL_ARCH.GEMMA2,
                 "Gemma3ForCausalLM": gguf.MODEL_ARCH.GEMMA3}


def name_map(config):
    arch = ARCHITECTURES[config["architectures"][0]]
    return arch, gguf.get_tensor_name_map(arch, config["num_hidden_layers"])


def check_model(folder):
    config = json.loads((folder / "config.json").read_text())
    arch, names = name_map(config)
    tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        for name, value in load_file(path).items():
            found = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if found is None or found in tensors:
                sys.exit("%s: %s has no GGUF name of its own (%s)" % (folder, name, found))
            tensors[found] = value + 1 if name.endswith("norm.weight") else value  # the converter adds the 1
    # What llama.cpp loads for this architecture; per layer, and outside.
    wanted = set()
    for tensor in gguf.MODEL_TENSORS[arch]:
        form = gguf.TENSOR_NAMES[tensor]
        if tensor == gguf.MODEL_TENSOR.OUTPUT:
            continue  # tied: llama.cpp takes token_embd
        for block in range(config["num_hidden_layers"]) if "{bid}" in form else [0]:
            wanted.add(form.format(bid=block) + ".weight")
    missing = {name for name in wanted - set(tensors) if "classifier" not in name and name.startswith(("blk", "token", "output"))}
    optional = {name for name in missing if any(part in name for part in ("cls", "dense", "embd_norm"))}
    if missing - optional:
        sys.exit("%s: absent for llama.cpp: %s" % (folder, sorted(missing - optional)))

    if not (folder / "tokenizer.model").is_file():
        sys.exit("%s: no tokenizer.model, which the converter needs" % folder)
    vocabulary = gguf.SentencePieceVocab(folder)
    pieces = list(vocabulary.all_tokens())
    if not len(pieces) <= config["vocab_size"] == tensors["token_embd.weight"].shape[0]:
        sys.exit("%s: %d pieces, %d rows" % (folder, len(pieces), tensors["token_embd.weight"].shape[0]))
    special = gguf.SpecialVocab(folder, n_vocab=len(pieces))
    ids = special.special_token_ids
    for kind, text in (("bos", b"<bos>"), ("eos", b"<eos>"), ("pad", b"<pad>"), ("unk", b"<unk>")):
        if kind not in ids or pieces[ids[kind]][0] != text:
            sys.exit("%s: gguf finds %s for %s" % (folder, ids.get(kind), kind))
    if not special.chat_template:
        sys.exit("%s: gguf finds no chat template" % folder)

    path = folder.parent / (folder.name + ".gguf")
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_token_list([text for text, _, _ in pieces])
    writer.add_token_scores([score for _, score, _ in pieces])
    writer.add_token_types([kind for _, _, kind in pieces])
    special.add_to_gguf(writer, quiet=True)
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = gguf.GGUFReader(path)
    same = sum((tensor.data == tensors[tensor.name]).all() for tensor in read.tensors)
    path.unlink()
    if same != len(tensors):
        sys.exit("%s: %d of %d tensors come back from the GGUF file" % (folder, same, len(tensors)))
    print("  gguf, %s: %d tensors named and written, %d pieces, special ids and template found" % (
        gguf.MODEL_ARCH_NAMES[arch], len(tensors), len(pieces)))


def check_adapter(folder, base):
    config = json.loads((folder / "adapter_config.json").read_text())
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int):
            sys.exit("%s: %s: expected a whole number, found %r" % (folder, key, config.get(key)))
    if not config.get("target_modules") or config.get("modules_to_save") or config.get("use_dora"):
        sys.exit("%s: vLLM would refuse %s" % (folder, config))
    _, names = name_map(json.loads((base / "config.json").read_text()))
    pairs = {}
    for name, value in load_file(folder / "adapter_model.safetensors").items():
        prefix, part = "base_model.model.", name.rsplit(".", 2)[1]
        if not name.startswith(prefix) or part not in ("lora_A", "lora_B"):
            sys.exit("%s: %s: llama.cpp and vLLM know no such name" % (folder, name))
        layer = name[len(prefix):].replace(".%s.weight" % part, ".weight")
        if names.get_name(layer, try_suffixes=(".weight",)) is None:
            sys.exit("%s: %s has no GGUF name" % (folder, layer))
        pairs.setdefault(layer, {})[part] = value
    for layer, pair in pairs.items():
        if set(pair) != {"lora_A", "lora_B"} or pair["lora_A"].shape[0] != config["r"] or pair["lora_B"].shape[1] != config["r"]:
            sys.exit("%s: %s: not a pair of rank %d" % (folder, layer, config["r"]))
    print("  gguf, adapter: %d pairs named, config as vLLM and llama.cpp read it" % len(pairs))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--adapter", type=pathlib.Path, help="an adapter whose base --model is")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if arguments.adapter:
        check_adapter(arguments.adapter, arguments.model)
    else:
        check_model(arguments.model)


if __name__ == "__main__":
    main()
