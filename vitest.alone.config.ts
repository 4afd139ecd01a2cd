import { defineConfig } from "vitest/config";

/** What measures time needs the machine for itself: `npm test` runs it when everything else is done. */
export default defineConfig({
  test: {
    include: ["test/**/*.alone.test.ts"],
    maxWorkers: 1,
    fileParallelism: false,
    testTimeout: 300_000,
  },
});
