import { defineConfig } from "vitest/config"

// Workspace packages resolve to their sources: tests need no build.
const conditions = ["source"]
const resolution = {
  resolve: { conditions: [...conditions, "module", "node", "development|production"] },
  ssr: {
    resolve: { conditions: [...conditions, "module", "node", "development|production"], externalConditions: conditions }
  }
}

/** Tests on real processes, few at a time. */
const realProcesses = (name: string, include: Array<string>, env: Record<string, string>) => ({
  ...resolution,
  test: {
    name,
    include,
    env,
    pool: "forks" as const,
    maxWorkers: 2,
    execArgv: ["--conditions=source"],
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
})

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
          name: "lifecycle",
          include: ["test/lifecycle/**/*.test.ts"],
          execArgv: ["--conditions=source"],
          // Two processes at a time are two processors.
          maxWorkers: 1,
          maxConcurrency: 2
        }
      },
      realProcesses("real", ["test/real/**/*.test.ts"], {}),
      // What depends on the engine, again without native code: the engine of macOS, of Workers, and where koffi is missing.
      realProcesses(
        "portable",
        [
          "Child",
          "Closing",
          "Guardian",
          "GuardianDescriptors",
          "HostDeath",
          "Launch",
          "Limits",
          "LinuxExtra",
          "Matrix",
          "Output",
          "Probe",
          "Spawner",
          "Supervisor",
          "Telemetry",
          "Termination"
        ].map((name) => `test/real/${name}.test.ts`),
        { TREELINE_ENGINE: "portable" }
      )
    ]
  }
})
