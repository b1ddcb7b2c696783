#!/usr/bin/env python3
"""Asks the reference reader of the safetensors format about broken and unusual files and writes down what it says.

    python3 -m pip install safetensors==0.8.0
    python3 make_safetensors_cases.py --count 300 --seed 1 > safetensors_cases.jsonl

One case a line: the file's bytes in hex, and either {"refused": why} or {"tensors": [[name, dtype, shape, data]...]}.
A larger run is compared with GEMMA_SFT_SAFETENSORS_CASES=FILE data_files_test --gtest_filter='*ReferenceReader*'.
"""
import argparse
import json
import random
import struct

import safetensors


def pack(header, data, length=None):
    text = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def seeds():
    f32 = bytes(range(24))
    yield pack('{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}', f32)
    yield pack('{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"I64","shape":[],"data_offsets":[4,12]}}   ', f32[:12])
    yield pack('{"__metadata__":{"format":"pt","x":""},"e":{"dtype":"U8","shape":[0,4],"data_offsets":[3,3]},'
               '"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}', f32[:3])
    yield pack('{"y":{"data_offsets":[2,6],"shape":[2,1],"dtype":"F16"},"x":{"shape":[2],"dtype":"BOOL","data_offsets":[0,2]}}', f32[:6])
    yield pack('{}', b"")
    yield pack('{ }      ', b"")
    yield pack('{"\\u00e4":{"dtype":"F64","shape":[1],"data_offsets":[0,8],"extra":[1,{"z":null}]}}', f32[:8])


def vectors():
    """The cases worth naming; the random ones are made from seeds()."""
    one = '{{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}}'
    def entry(dtype='"F32"', shape="[1]", offsets="[0,4]", data=b"1234"):
        return pack(one.format(dtype, shape, offsets), data)
    yield b""
    yield b"\x00" * 7
    yield struct.pack("<Q", 0)
    yield struct.pack("<Q", 0) + b"{}"
    for length in (1, 3, 2**31, 2**32, 100_000_001, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1):
        yield pack("{}", b"", length)
    for shape in ("[1.0]", '["1"]', "[-1]", "[null]", "null", "1", "[1e0]", "[01]", "[[1]]", "[4294967296,4294967296]",
                  "[9223372036854775808]", "[18446744073709551615]", "[18446744073709551616]", "[2,9223372036854775808]",
                  "[0,9223372036854775808]", "[9223372036854775808,0]", "[9223372036854775807,0]", "[-0]", "[]", "[1,1,1,1]",
                  "[0]", "[2]", "[true]"):
        yield entry(shape=shape)
    for offsets in ("[0]", "[0,4,8]", "[4,0]", "[0,8]", "[1,5]", "[0,3]", "[-4,0]", "[0.0,4.0]", '["0","4"]', "[]", "null",
                    "[0,18446744073709551615]", "[4,8]", "[0,4.0]", "[18446744073709551612,0]"):
        yield entry(offsets=offsets)
    for dtype in ('"F8_E4M3"', '"F8_E5M2"', '"U16"', '"U32"', '"U64"', '"C64"', '"F4"', '"f32"', '"float32"', '""', "1",
                  "null", '"F32 "', '"I8"', '"BOOL"'):
        yield entry(dtype=dtype)
    yield pack('{"a":{"dtype":"F32","shape":[1]}}', b"1234")
    yield pack('{"a":{"shape":[1],"data_offsets":[0,4]}}', b"1234")
    yield pack('{"a":{"dtype":"F32","data_offsets":[0,4]}}', b"1234")
    yield pack('{"a":[]}', b"")
    yield pack('{"a":null}', b"")
    tensor = '"dtype":"U8","shape":[2],"data_offsets":'
    yield pack('{"a":{%s[0,2]},"b":{%s[0,2]}}' % (tensor, tensor), b"12")
    yield pack('{"a":{%s[0,2]},"b":{%s[1,3]}}' % (tensor, tensor), b"123")
    yield pack('{"a":{%s[0,2]},"b":{%s[3,5]}}' % (tensor, tensor), b"12345")
    yield pack('{"a":{%s[1,3]}}' % tensor, b"123")
    yield pack('{"a":{%s[0,2]}}' % tensor, b"123")
    yield pack('{"a":{%s[0,2]}}' % tensor, b"1")
    yield pack('{"a":{%s[0,2]},"a":{%s[2,4]}}' % (tensor, tensor), b"1234")
    yield pack('{"a":{%s[0,2],"dtype":"I8"}}' % tensor, b"12")
    for metadata in ('{"a":1}', '{"a":null}', '{"a":{}}', "null", "[]", '"x"', "{}", '{"a":"b","a":"c"}'):
        yield pack('{"__metadata__":%s}' % metadata, b"")
    for header in (" {}", "[]", "null", "{}x", "{}\n\t ", "{}\x00", '{"a"', "\ufeff{}", "{'a':1}", "[" * 1000):
        yield pack(header, b"")
    yield pack(b'{"\xff":1}', b"")
    yield pack('{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"")


def mutants(rng):
    alphabet = b'{}[]:,"\\019-.eE nul\x00\xff'
    numbers = ["0", "1", "2", "4", "8", "-1", "9223372036854775807", "9223372036854775808", "18446744073709551615", "1e1", "2.0"]
    while True:
        file = bytearray(rng.choice(list(seeds())))
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            at = rng.randrange(len(file))
            kind = rng.randrange(6)
            if kind == 0:
                file[at] = rng.choice(alphabet)
            elif kind == 1:
                file[at] ^= 1 << rng.randrange(8)
            elif kind == 2:
                del file[at : at + rng.randrange(1, 4)]
            elif kind == 3:
                file.insert(at, rng.choice(alphabet))
            elif kind == 4:
                file[8:] = file[8:].replace(rng.choice([b"0", b"2", b"3", b"4"]), rng.choice(numbers).encode(), 1)
            else:
                del file[len(file) - rng.randrange(1, 6) :]
            if len(file) < 9:
                break
        if len(file) > 8 and rng.random() < 0.6:  # keep the length true, else most mutants die at the first check
            end = file.rfind(b"}") + 1
            struct.pack_into("<Q", file, 0, max(0, end - 8))
        yield bytes(file)


def verdict(file):
    try:
        tensors = safetensors.deserialize(file)
    except BaseException as error:  # a panic of the reference counts as a refusal too
        return {"refused": str(error)[:100]}
    rows = [[name, str(t["dtype"]), list(t["shape"]), bytes(t["data"]).hex()] for name, t in tensors]
    return {"tensors": sorted(rows)}


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--count", type=int, default=300, help="random ones, besides the named")
    options.add_argument("--seed", type=int, default=1)
    options = options.parse_args()
    rng = random.Random(options.seed)
    source = mutants(rng)
    for file in [*seeds(), *vectors(), *(next(source) for _ in range(options.count))]:
        print(json.dumps({"file": file.hex(), **verdict(file)}))


main()
