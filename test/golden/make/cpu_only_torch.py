"""Makes PyPI's x86 wheel of torch import on a machine without a GPU and without its CUDA packages.

The wheel is linked against about 3 GB of CUDA libraries that a CPU run never calls. This script puts tiny
stand-ins beside torch's own libraries: every function that torch expects from CUDA exists and returns
100, which is cudaErrorNoDevice, so that `torch.cuda.is_available()` is False and everything on the CPU is
the released binary, untouched. Needs a C compiler and binutils.

    python cpu_only_torch.py .venv
"""

import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

SYSTEM_VERSIONS = ("GLIBC", "GCC", "CXXABI", "GOMP", "OMP")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(library: Path) -> list[str]:
    return [line.split("[")[1].split("]")[0] for line in run("readelf", "-d", str(library)).splitlines() if "NEEDED" in line]


def symbols(library: Path, kind: str) -> list[str]:
    return [line.split()[-1] for line in run("nm", "-D", f"--{kind}", str(library)).splitlines()]


def is_system(symbol: str) -> bool:
    _, _, version = symbol.partition("@")
    return version.lstrip("@").startswith(SYSTEM_VERSIONS)


def missing_symbols(libraries: list[Path]) -> dict[str, set[str]]:
    """Symbols that no library of torch defines, by the CUDA library they name ('' where none is named)."""
    defined = {s.split("@")[0] for library in libraries for s in symbols(library, "defined-only")}
    missing: dict[str, set[str]] = defaultdict(set)
    for library in libraries:
        for symbol in symbols(library, "undefined-only"):
            name, _, version = symbol.partition("@")
            # C++ names and names with leading underscores other than the CUDA registration calls are the system's.
            if not is_system(symbol) and name not in defined and (name.startswith("__cuda") or not name.startswith("_")):
                missing[version].add(name)
    return missing


def version_owners(libraries: list[Path]) -> dict[str, str]:
    """Which library each symbol version belongs to: usually the library's own name, not always."""
    owners = {}
    for library in libraries:
        owner = ""
        for line in run("readelf", "--wide", "-V", str(library)).splitlines():
            words = line.split()
            if "File:" in words:
                owner = words[words.index("File:") + 1]
            elif "Name:" in words and owner:
                owners[words[words.index("Name:") + 1]] = owner
    return owners


def stand_in(name: str) -> str:
    # An error's text must be a string even if nothing but an error path asks for it.
    return f'const char *{name}(void) {{ return "no CUDA"; }}\n' if "String" in name else f"long {name}(void) {{ return 100; }}\n"


def build(soname: str, versions: dict[str, set[str]], plain: set[str], directory: Path) -> None:
    names = plain.union(*versions.values())
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "stub.c"), Path(scratch, "stub.map")
        source.write_text("".join(stand_in(name) for name in sorted(names)))
        script.write_text("".join(f"{v} {{ global: {' '.join(f'{n};' for n in sorted(of))} }};\n" for v, of in versions.items()))
        option = [f"-Wl,--version-script={script}"] if versions else []
        run("cc", "-shared", "-fPIC", "-w", "-fno-builtin", str(source), "-o", str(directory / soname), f"-Wl,-soname,{soname}", *option)


def main(venv: Path) -> None:
    directory = next(venv.glob("lib/python3*/site-packages/torch/lib"))
    libraries = sorted(directory.glob("lib*.so"))
    present = {p.name for p in directory.iterdir()}
    absent = {n for library in libraries for n in needed(library)} - present
    cuda = sorted(n for n in absent if n.startswith(("libcu", "libnv", "libnccl")))
    missing, owners = missing_symbols(libraries), version_owners(libraries)
    for soname in cuda:
        versions = {v: names for v, names in missing.items() if v and owners.get(v) == soname}
        # Names without a version may live anywhere: the one library that everything loads holds them.
        plain = missing[""] if soname.startswith("libcudart") else set()
        build(soname, versions, plain.difference(*versions.values()), directory)
    print(f"{directory}: {len(cuda)} stand-ins written")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
