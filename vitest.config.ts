import * as path from "node:path"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

// Workspace packages resolve to their sources: tests need no build.
const conditions = ["source"]
const resolution = {
  resolve: { conditions: [...conditions, "module", "node", "development|production"] },
  ssr: {
    resolve: { conditions: [...conditions, "module", "node", "development|production"], externalConditions: conditions }
  }
}

const onWindows = process.platform === "win32"

/**
 * What takes longest begins first, so that at the end nothing is waited for. The two engines' LinuxExtra, which starts
 * 1,000 processes at once, are far from each other.
 */
const long = [
  "portable Matrix",
  "real Matrix",
  "real LinuxExtra",
  "portable HostDeath",
  "real HostDeath",
  "real ServiceStack",
  "real Linux",
  "real Guard",
  "real Cluster",
  "real Run",
  "real Config",
  "real Conformance",
  "portable Termination",
  "real Termination",
  "portable Guardian",
  "real Guardian",
  "real Logs",
  "portable LinuxExtra",
  "portable Child",
  "real WindowsLane",
  "windows Daemon",
  "windows Trees",
  "windows HostDeath",
  "windows Launch",
  "windows Settings"
]

class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const sorted = await super.sort(files)
    const group = ({ project }: TestSpecification) => project.config.sequence.groupOrder
    const rank = ({ moduleId, project }: TestSpecification) => {
      const at = long.indexOf(`${project.name} ${path.basename(moduleId, ".test.ts")}`)
      return at < 0 ? long.length : at
    }
    return sorted.toSorted((a, b) => group(a) - group(b) || rank(a) - rank(b))
  }
}

/** Compiled modules of vitest and of what it loads: each file has a process of its own. */
const NODE_COMPILE_CACHE = path.join(import.meta.dirname, "node_modules/.cache/treeline/compiled")

/** Tests on real processes. */
const realProcesses = (
  name: string,
  { env, exclude, groupOrder, include, maxWorkers }: {
    readonly groupOrder: number
    readonly maxWorkers: number
    readonly include: Array<string>
    readonly exclude?: Array<string>
    readonly env?: Record<string, string>
  }
) => ({
  ...resolution,
  test: {
    name,
    include,
    exclude: exclude ?? [],
    env: { ...env },
    globalSetup: onWindows ? [] : ["test/support/bundlePrograms.ts"],
    pool: "forks" as const,
    maxWorkers,
    sequence: { groupOrder },
    execArgv: ["--conditions=source"],
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
})

const packages = path.join(import.meta.dirname, "packages").replaceAll("\\", "/")

/** They mostly wait: four files at a time keep two processors busy. */
const few = { groupOrder: 2, maxWorkers: 4 }

/** `npm run test:windows`. */
const windows = (name: string, groupOrder: number, include: Array<string>, exclude: Array<string>) => {
  const project = realProcesses(name, { groupOrder, maxWorkers: 2, include, exclude })
  return {
    ...project,
    // A process takes long to start under Wine.
    test: { ...project.test, testTimeout: 60_000 },
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
    reporters: [
      "default",
      ...process.env["CI"] === "true"
        ? [["json", { outputFile: `.reports/${process.env["TREELINE_REPORT"] ?? "vitest"}.json` }] as ["json", object]]
        : [],
      ...onWindows ? ["./tools/windows/lastWord.mjs"] : []
    ],
    env: onWindows ? {} : { NODE_COMPILE_CACHE },
    sequence: { sequencer: LongestFirst },
    // One group after another: what needs all processors has the machine to itself.
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
          windows("windows", 3, ["test/windows/**/*.test.ts"], [costs]),
          windows("windows-cost", 4, [costs], [])
        ] :
        [
          realProcesses("real", { ...few, include: ["test/real/**/*.test.ts"] }),
          // What depends on the engine, again without native code: the engine of macOS, of Workers, and where koffi is missing.
          realProcesses("portable", {
            ...few,
            env: { TREELINE_ENGINE: "portable" },
            include: [
              "Child",
              "Closing",
              "Environment",
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
            ].map((name) => `test/real/${name}.test.ts`)
          })
        ])
    ]
  }
})
