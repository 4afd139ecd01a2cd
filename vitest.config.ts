import { existsSync } from "node:fs";
import { defineConfig } from "vitest/config";

const hasNative = existsSync(`native/minke.${process.platform}-${process.arch}.node`);

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    exclude: ["**/node_modules/**", "**/*.soak.test.ts", "**/*.alone.test.ts", "**/.venv/**"],
    // The native pool uses every core; test files side by side would only time each other out.
    maxWorkers: 2,
    // On the reference backend a run of some steps takes minutes.
    testTimeout: hasNative ? 60_000 : 600_000,
  },
});
