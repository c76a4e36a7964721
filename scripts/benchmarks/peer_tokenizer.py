"""The tokenizers package on the lines of a .jsonl: prints the seconds of its fastest call."""

import json
import sys
import time

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
texts = [json.loads(line)["text"] for line in open(sys.argv[2])]
started = time.perf_counter()
tokenizer.encode_batch_fast(texts)
print(time.perf_counter() - started)
