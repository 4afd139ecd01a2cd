import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    exclude: ["**/node_modules/**", "**/*.soak.test.ts", "**/*.alone.test.ts", "**/.venv/**"],
    // The native pool uses every core; test files side by side would only time each other out.
    maxWorkers: 2,
    testTimeout: 60_000,
  },
});
