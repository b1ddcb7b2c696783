#!/usr/bin/env python3
"""Makes a tokenizer with the layout of a published Gemma: tokenizer.model as sentencepiece has it, and the tokenizer.json
and tokenizer_config.json that lie beside it, or only those.

    python3 tests/compat/gemma_tokenizer.py OUTPUT [--pieces 262144] [--generation 3] [--seed 1]

The special pieces stand under the published ids. The others are random words of the texts' alphabets, each joined from two
others, so that the merges have the published number per piece (about two).
"""
import argparse
import json
import pathlib
import random

from sentencepiece import sentencepiece_model_pb2 as proto

SPACE = "\u2581"
TAGS = ["table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote"]
MORE_TAGS = ["strong", "em", "b", "i", "u", "s", "sub", "sup", "code"]
ALPHABETS = ["etaoinshrdlucmfwypvbgkjqxz", "ETAOINSHRDLUCMFWYPVBGKJQXZ", "\u043e\u0435\u0430\u0438\u043d\u0442\u0441\u0440\u0432\u043b\u043a\u043c\u0434\u043f\u0443",
             "\u05d0\u05d1\u05d2\u05d3\u05d4\u05d5\u05d6\u05d7\u05d8\u05d9\u05e9\u05ea", "\u0627\u0628\u062a\u062b\u062c\u062d\u062e\u062f\u0631\u0633\u0634\u0639\u0644\u0645\u0646\u0647\u0648\u064a",
             "\u7684\u4e00\u662f\u4e0d\u4e86\u4eba\u6211\u5728\u6709\u4ed6\u8fd9\u4e2d\u5927\u6765\u4e0a\u56fd\u65e5\u672c\u8a9e", "\u3042\u3044\u3046\u3048\u304a\u304b\u304d\u304f\u3051\u3053\u3067\u3059",
             "\u0915\u0916\u0917\u0918\u091a\u091c\u0924\u0926\u0928\u092a\u092c\u092e\u092f\u0930\u0932\u0935\u0938\u0939\u093e\u093f\u0940\u0941\u0947\u094b\u094d", ".,;:!?-_=+*/()[]{}<>|&^%$#@~'\"\\"]
SINGLES = "0123456789\t\r\u00e9\u00e8\u00fc\u00f1\u0301\u0308\u200d\u00a0\u3000\u2019\u201c\u201d\u2026\u20ac\U0001f600\U0001f44d\u2764\ufe0f"


def special_pieces(generation):
    """(text, type) of the pieces before the words."""
    kinds = proto.ModelProto.SentencePiece
    pieces = [("<pad>", kinds.CONTROL), ("<eos>", kinds.CONTROL), ("<bos>", kinds.CONTROL), ("<unk>", kinds.UNKNOWN)]
    user = ["<mask>"] + (["<2mass>", "[@BOS@]"] if generation < 3 else ["[multimodal]"])
    user += ["<unused%d>" % i for i in range(99)] + ["<start_of_turn>", "<end_of_turn>"]
    user += ["\n" * n for n in range(1, 32)] + [SPACE * n for n in range(2, 32)]
    user += [form % tag for form in ("<%s>", "</%s>") for tag in TAGS + MORE_TAGS]
    if generation >= 3:
        user += ["<start_of_image>", "<end_of_image>"]
    pieces += [(text, kinds.USER_DEFINED) for text in user]
    return pieces + [("<0x%02X>" % byte, kinds.BYTE) for byte in range(256)]


def words(count, rng):
    """`count` different texts of two characters and more; each is two earlier ones or characters put together."""
    pools = [[c for c in alphabet] + [SPACE + c for c in alphabet] for alphabet in ALPHABETS]
    made = dict.fromkeys(text for pool in pools for text in pool if len(text) > 1)
    while len(made) < count:
        pool = pools[min(int(rng.expovariate(0.6)), len(pools) - 1)]
        left, right = pool[int(len(pool) * rng.random() ** 8)], pool[int(len(pool) * rng.random() ** 8)]
        text = left + right
        if not right.startswith(SPACE) and len(text) <= 16 and text not in made:
            made[text] = None
            pool.append(text)
    return list(made)[:count]


def make_model(pieces, generation, seed):
    model = proto.ModelProto()
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = pieces
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    special = special_pieces(generation)
    characters = list(dict.fromkeys(SPACE + "".join(ALPHABETS) + SINGLES))
    for text, kind in special:
        model.pieces.add(piece=text, score=0, type=kind)
    for rank, text in enumerate(words(pieces - len(special) - len(characters), random.Random(seed)) + characters):
        model.pieces.add(piece=text, score=-rank, type=proto.ModelProto.SentencePiece.NORMAL)
    return model


def tokenizer_json(model, generation):
    """As transformers converts it: every way to cut a piece into two, in the order of the ids."""
    kinds = proto.ModelProto.SentencePiece
    ids = {piece.piece: id for id, piece in enumerate(model.pieces)}
    merges = []
    for piece in model.pieces:
        text = piece.piece
        cuts = [(text[:at], text[at:]) for at in range(1, len(text)) if text[:at] in ids and text[at:] in ids]
        merges += sorted(cuts, key=lambda cut: (len(cut[0]), len(cut[1])))
    added = [{"id": id, "content": piece.piece, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": piece.type != kinds.USER_DEFINED or piece.piece[0] + piece.piece[-1] == "<>" and
              piece.piece.strip("</>") not in TAGS + MORE_TAGS}
             for id, piece in enumerate(model.pieces) if piece.type in (kinds.CONTROL, kinds.UNKNOWN, kinds.USER_DEFINED)]
    if generation >= 3:
        added.append(dict(added[0], id=len(ids), content="<image_soft_token>"))
    bos, first, second = ({"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                          {"Sequence": {"id": "B", "type_id": 1}})
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": [bos, first],
                           "pair": [bos, first, {"SpecialToken": {"id": "<bos>", "type_id": 1}}, second],
                           "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": ids,
                  # tokenizers wrote pairs as "left right" until 0.20
                  "merges": [" ".join(cut) for cut in merges] if generation < 3 else [list(cut) for cut in merges]}}


def write(folder, pieces, generation, seed):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(pieces, generation, seed)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    document = tokenizer_json(model, generation)
    (folder / "tokenizer.json").write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False,
              "clean_up_tokenization_spaces": False, "spaces_between_special_tokens": False, "sp_model_kwargs": {},
              "use_default_system_prompt": False, "model_max_length": 1000000000000000019884624838656,
              "added_tokens_decoder": {str(token["id"]): {k: v for k, v in token.items() if k != "id"}
                                       for token in document["added_tokens"]}}
    config.update({"%s_token" % name: "<%s>" % name for name in ("bos", "eos", "pad", "unk")})
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")
    return model, document


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output")
    parser.add_argument("--pieces", type=int, default=262144)
    parser.add_argument("--generation", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    model, document = write(arguments.output, arguments.pieces, arguments.generation, arguments.seed)
    print("%d pieces, %d pairs, tokenizer.json of %.1f MB" % (
        len(model.pieces), len(document["model"]["merges"]),
        (pathlib.Path(arguments.output) / "tokenizer.json").stat().st_size / 1e6))


if __name__ == "__main__":
    main()
