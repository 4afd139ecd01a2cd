import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { scratchFolder } from "../../../test/support/scratchFolder.ts";
import { howToSetUp, isSetUp, JAX_JS, TORCH } from "./peerSetup.ts";

describe("isSetUp", () => {
  test("an environment without the package in it is not set up; with it, it is, whatever Python's version", async () => {
    const folder = await scratchFolder();
    expect(isSetUp(TORCH, folder)).toBe(false);
    const packages = join(folder, ".venv", "lib", "python3.77", "site-packages");
    await mkdir(join(folder, ".venv", "bin"), { recursive: true });
    await writeFile(join(folder, ".venv", "bin", "python"), "");
    await mkdir(packages, { recursive: true });
    expect(isSetUp(TORCH, folder)).toBe(false);
    await mkdir(join(packages, "torch"));
    await writeFile(join(packages, "torch", "__init__.py"), "");
    expect([isSetUp(TORCH, folder), isSetUp(JAX_JS, folder)]).toEqual([true, false]);
  });

  test("what is missing says which script makes it", () => {
    expect(howToSetUp(JAX_JS)).toBe("jax-js is not set up: bench/peers/setup_js.sh does it");
  });
});
