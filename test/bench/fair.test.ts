/** What Python's side promises, read from its text: CI has no PyTorch. */
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const folder = join(import.meta.dirname, "..", "..", "bench", "peers");

test("every program that is timed sets its environment before torch is loaded", () => {
  const programs = globSync("*.py", { cwd: folder }).filter((name) =>
    readFileSync(join(folder, name), "utf8").includes('if __name__ == "__main__":'),
  );
  expect(programs.toSorted()).toEqual(["gemm.py", "nanogpt.py", "torch_v3.py"]);
  for (const name of programs) {
    const lines = readFileSync(join(folder, name), "utf8").split("\n");
    const main = lines.findIndex((line) => /^\s*restart_with\(/.test(line));
    expect(main, `${name} calls restart_with`).toBeGreaterThan(0);
    // Imports inside functions run later; fair.py itself refuses to come too late.
    const early = lines.slice(0, main).filter((line) => /^(import|from) torch/.test(line));
    expect(early, `${name} loads torch before`).toEqual([]);
  }
});
