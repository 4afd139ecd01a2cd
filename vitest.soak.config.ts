import { defineConfig } from "vitest/config";

/** What takes longer than CI may: `npm run test:soak`; its results are committed to docs/log/. */
export default defineConfig({
  test: {
    include: ["src/**/*.soak.test.ts", "test/**/*.soak.test.ts"],
    maxWorkers: 1,
    testTimeout: 3_600_000,
  },
});
