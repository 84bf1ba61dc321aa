import { defineConfig } from "vitest/config"

// Workspace packages resolve to their sources: tests need no build.
const conditions = ["source"]
const resolution = {
  resolve: { conditions: [...conditions, "module", "node", "development|production"] },
  ssr: {
    resolve: { conditions: [...conditions, "module", "node", "development|production"], externalConditions: conditions }
  }
}

export default defineConfig({
  ...resolution,
  test: {
    passWithNoTests: true,
    // .ci/run counts tests from the report.
    reporters: process.env["CI"] === "true"
      ? ["default", ["json", { outputFile: ".reports/vitest.json" }]]
      : ["default"],
    projects: [
      {
        ...resolution,
        test: {
          name: "unit",
          include: ["test/unit/**/*.test.ts"],
          execArgv: ["--conditions=source"],
          // Unit tests are on the test clock: one that takes real time hangs.
          testTimeout: 10_000
        }
      },
      {
        ...resolution,
        test: {
          name: "real",
          include: ["test/real/**/*.test.ts"],
          pool: "forks",
          maxWorkers: 2,
          execArgv: ["--conditions=source"],
          testTimeout: 30_000,
          hookTimeout: 30_000
        }
      }
    ]
  }
})
