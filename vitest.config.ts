import * as path from "node:path"
import { defineConfig } from "vitest/config"

// Workspace packages resolve to their sources: tests need no build.
const conditions = ["source"]
const resolution = {
  resolve: { conditions: [...conditions, "module", "node", "development|production"] },
  ssr: {
    resolve: { conditions: [...conditions, "module", "node", "development|production"], externalConditions: conditions }
  }
}

const onWindows = process.platform === "win32"

/** Tests on real processes, few at a time. */
const realProcesses = (name: string, groupOrder: number, include: Array<string>, env: Record<string, string>) => ({
  ...resolution,
  test: {
    name,
    include,
    env,
    globalSetup: onWindows ? [] : ["test/support/bundlePrograms.ts"],
    pool: "forks" as const,
    maxWorkers: 2,
    sequence: { groupOrder },
    execArgv: ["--conditions=source"],
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
})

const packages = path.join(import.meta.dirname, "packages").replaceAll("\\", "/")

/** `npm run test:windows`. */
const windows = (name: string, groupOrder: number, include: Array<string>, exclude: Array<string>) => {
  const project = realProcesses(name, groupOrder, include, {})
  return {
    ...project,
    // A process takes long to start under Wine.
    test: { ...project.test, exclude, testTimeout: 60_000 },
    resolve: {
      ...resolution.resolve,
      // Wine takes the links in node_modules for folders, and a package there would not be taken for a source.
      alias: [
        { find: /^@treeline\/([^/]+)$/, replacement: `${packages}/$1/src/index.ts` },
        { find: /^@treeline\/core\/(testing|daemon|cluster)$/, replacement: `${packages}/core/src/$1/index.ts` },
        { find: /^@treeline\/([^/]+)\/(.+)$/, replacement: `${packages}/$1/src/$2.ts` }
      ]
    }
  }
}

const costs = "test/windows/Cost.test.ts"

export default defineConfig({
  ...resolution,
  test: {
    passWithNoTests: true,
    // .ci/run counts tests from the report.
    reporters: process.env["CI"] === "true"
      ? ["default", ["json", { outputFile: `.reports/${process.env["TREELINE_REPORT"] ?? "vitest"}.json` }]]
      : ["default"],
    // One after another: what measures time on real processes has the machine to itself.
    projects: [
      {
        ...resolution,
        test: {
          name: "unit",
          include: ["test/unit/**/*.test.ts"],
          sequence: { groupOrder: 0 },
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
          sequence: { groupOrder: 1 },
          execArgv: ["--conditions=source"],
          // Two processes at a time are two processors.
          maxWorkers: 1,
          maxConcurrency: 2
        }
      },
      ...(onWindows ?
        [
          windows("windows", 4, ["test/windows/**/*.test.ts"], [costs]),
          windows("windows-cost", 5, [costs], [])
        ] :
        [
          realProcesses("real", 2, ["test/real/**/*.test.ts"], {}),
          // What depends on the engine, again without native code: the engine of macOS, of Workers, and where koffi is missing.
          realProcesses(
            "portable",
            3,
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
              "Pool",
              "Probe",
              "Spawner",
              "Supervisor",
              "Telemetry",
              "Termination"
            ].map((name) => `test/real/${name}.test.ts`),
            { TREELINE_ENGINE: "portable" }
          )
        ])
    ]
  }
})
