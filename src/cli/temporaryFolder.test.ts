import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

test("a temporary folder is there for its process and gone with it, however it ends", () => {
  const file = JSON.stringify(join(import.meta.dirname, "temporaryFolder.ts"));
  for (const end of ["", "process.exit(130);", "throw new Error('lost');"]) {
    const script = `
      import { existsSync, writeFileSync } from "node:fs";
      import { temporaryFolder } from ${file};
      const path = temporaryFolder("minke-gone-");
      writeFileSync(path + "/kernel", "x");
      console.log(existsSync(path + "/kernel"), path);
      ${end}`;
    const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      encoding: "utf8",
    });
    const [wasThere, path = ""] = stdout.trim().split(" ");
    expect(wasThere).toBe("true");
    expect(path).toContain("minke-gone-");
    expect(existsSync(path)).toBe(false);
  }
});
