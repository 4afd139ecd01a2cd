import { defineConfig } from "vitest/config";

/** What takes longer than CI may: `npm run test:soak`; its results are committed to docs/log/. */
export default defineConfig({
  test: {
    include: ["src/**/*.soak.test.ts", "test/**/*.soak.test.ts"],
    maxWorkers: 1,
    // A machine with other tenants took more than an hour for two arms of 3,000 steps: what timed out left nothing.
    testTimeout: 4 * 3_600_000,
  },
});
