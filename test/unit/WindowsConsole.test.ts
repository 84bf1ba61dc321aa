/**
 * How events of consoles are asked for and sent, without a system: the helper is two streams, a console is an entry of a
 * table. The real ones are in test/windows.
 */
import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import { PassThrough } from "node:stream"
import { vi } from "vitest"
import { ConsoleControl } from "../../packages/platform-windows/src/internal/ConsoleControl.ts"
import * as ConsoleEvents from "../../packages/platform-windows/src/internal/ConsoleEvents.ts"
import type { Means } from "../../packages/platform-windows/src/internal/Job.ts"
import type * as Kernel32 from "../../packages/platform-windows/src/internal/Kernel32.ts"
import type { Launcher } from "../../packages/platform-windows/src/internal/Launch.ts"

interface Helper {
  /** What it was asked, without the host's pid. */
  readonly asked: Array<string>
  readonly says: (line: string) => void
  readonly ends: () => void
  readonly environment: string
}

const systemOf = () => {
  const helpers: Array<Helper> = []
  let references = 0
  let atEnd = () => {}
  const launcher = {
    launch: ({ environment }: { readonly environment: Buffer }) => {
      const input = new PassThrough()
      const output = new PassThrough()
      const asked: Array<string> = []
      input.setEncoding("latin1").on("data", (text: string) => {
        for (const line of text.trimEnd().split("\n")) asked.push(line.replace(` ${process.pid} `, " "))
      })
      const sockets = [input, output].map((stream) => Object.assign(stream, { unref: () => stream }))
      helpers.push({
        asked,
        says: (line) => void output.write(`${line}\n`),
        ends: () => atEnd(),
        environment: environment.toString("utf16le")
      })
      return { pid: helpers.length, process: helpers.length, pipes: new Map(), sockets }
    }
  }
  const kernel: Partial<Kernel32.Kernel32> = {
    CloseHandle: () => 1,
    CreateJobObjectW: () => 1000,
    SetInformationJobObject: () => 1
  }
  const means = {
    kernel,
    keepAlive: { reference: () => void references++, unreference: () => void references-- },
    waits: {
      add: (_process: number, listener: () => void) => {
        atEnd = listener
        return () => (atEnd = () => {})
      }
    },
    systemDirectory: "C:\\Windows\\System32"
  }
  const control = new ConsoleControl(means as unknown as Means, launcher as unknown as Launcher)
  return { control, helpers, references: () => references }
}

/** Streams tell in a later turn. */
const turns = async () => {
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate)
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }))
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllEnvs()
})

describe("ConsoleControl", () => {
  it("the helper has one request at a time, once it is ready", async () => {
    const { control, helpers, references } = systemOf()
    const first = control.send("break", [10, 11])
    await turns()
    const [helper] = helpers
    assert.deepStrictEqual([helpers.length, helper!.asked.length], [1, 0])
    helper!.says("ready")
    await turns()
    const second = control.send("interrupt", [20])
    await turns()
    assert.deepStrictEqual(helper!.asked, ["1 break 10 11"])
    helper!.says("1 1")
    assert.strictEqual(await first, 1)
    await turns()
    assert.deepStrictEqual(helper!.asked, ["1 break 10 11", "2 interrupt 20"])
    helper!.says("2 0")
    assert.deepStrictEqual([await second, references()], [0, 0])
    assert.strictEqual(control.problem, undefined)
  })

  it("what becomes of one request is nothing to the others: one that is late, and a helper that ends", async () => {
    const { control, helpers, references } = systemOf()
    const answers = [10, 20, 30].map((pid) => control.send("break", [pid]))
    helpers[0]!.says("ready")
    await turns()
    vi.advanceTimersByTime(3_000)
    assert.strictEqual(await answers[0], 0)
    assert.strictEqual(helpers.length, 2, "another helper")
    helpers[1]!.says("ready")
    await turns()
    assert.deepStrictEqual(helpers[1]!.asked, ["2 break 20"])
    helpers[1]!.ends()
    assert.strictEqual(helpers.length, 3)
    helpers[2]!.says("ready")
    await turns()
    helpers[2]!.says("2 1")
    await turns()
    helpers[2]!.says("3 1")
    assert.deepStrictEqual(await Promise.all(answers), [0, 1, 1])
    assert.deepStrictEqual(helpers.map(({ asked }) => asked), [["1 break 10"], ["2 break 20"], [
      "2 break 20",
      "3 break 30"
    ]])
    assert.strictEqual(references(), 0)
  })

  it("a request that ends two helpers is given to no third", async () => {
    const { control, helpers } = systemOf()
    const answer = control.send("break", [10])
    for (const nth of [0, 1]) {
      helpers[nth]!.says("ready")
      await turns()
      helpers[nth]!.ends()
    }
    assert.deepStrictEqual([await answer, helpers.length], [0, 2])
  })

  for (
    const [name, fails, why] of [
      ["that is not ready in time", () => void vi.advanceTimersByTime(10_000), /was not ready after 10 s/],
      ["that ends before it is ready", ({ ends }: Helper) => ends(), /ended at once/]
    ] as const
  ) {
    it(`a helper ${name} is none, and no other is started: the program may not be Node`, async () => {
      const { control, helpers, references } = systemOf()
      const answer = control.send("break", [10])
      assert.include(helpers[0]!.environment, "TREELINE_CONSOLE_HELPER=1\0")
      fails(helpers[0]!)
      assert.deepStrictEqual([await answer, await control.send("break", [10])], [0, 0])
      control.startSoon()
      vi.advanceTimersByTime(60_000)
      assert.deepStrictEqual([helpers.length, references()], [1, 0])
      assert.match(control.problem ?? "", why)
    })
  }

  it("a program that was started as a helper starts none, whatever it is", async () => {
    vi.stubEnv("TREELINE_CONSOLE_HELPER", "1")
    const { control, helpers } = systemOf()
    control.startSoon()
    vi.advanceTimersByTime(60_000)
    assert.deepStrictEqual([await control.send("break", [10]), helpers.length], [0, 0])
    assert.match(control.problem ?? "", /TREELINE_CONSOLE_HELPER is set/)
  })

  it("a single executable application starts no helper: it would be itself", async () => {
    const isSea = vi.spyOn(process.getBuiltinModule("node:sea"), "isSea").mockReturnValue(true)
    const { control, helpers } = systemOf()
    isSea.mockRestore()
    assert.deepStrictEqual([await control.send("break", [10]), helpers.length], [0, 0])
    assert.match(control.problem ?? "", /single executable/)
  })

  it("nobody waits for ever behind others", async () => {
    const { control, helpers, references } = systemOf()
    const answers = Array.from({ length: 20 }, () => control.send("break", [10]))
    for (let nth = 0; nth < helpers.length && nth < 20; nth++) {
      helpers[nth]!.says("ready")
      await turns()
      vi.advanceTimersByTime(3_000)
    }
    assert.deepStrictEqual(new Set(await Promise.all(answers)), new Set([0]))
    assert.deepStrictEqual([helpers.length, references()], [4, 0])
  })

  it("a helper that has worked and ends is followed by another before it is needed, one that has not is not", async () => {
    const { control, helpers } = systemOf()
    const answer = control.send("break", [10])
    helpers[0]!.says("ready")
    await turns()
    helpers[0]!.says("1 1")
    assert.strictEqual(await answer, 1)
    helpers[0]!.ends()
    assert.strictEqual(helpers.length, 2)
    helpers[1]!.says("ready")
    await turns()
    helpers[1]!.ends()
    assert.strictEqual(helpers.length, 2)
  })

  it("what was not answered when it stops is answered, and the helper may do so late", async () => {
    const { control, helpers, references } = systemOf()
    const answers = [control.send("break", [10]), control.send("break", [20])]
    helpers[0]!.says("ready")
    await turns()
    control.stop()
    helpers[0]!.says("1 1")
    assert.deepStrictEqual(await Promise.all(answers), [0, 0])
    assert.deepStrictEqual([helpers.length, references()], [1, 0])
  })
})

describe("ConsoleEvents", () => {
  /** Consoles by the pids on them. */
  const on = (...consoles: ReadonlyArray<ReadonlyArray<number> | "unknown">) => {
    const log: Array<string> = []
    const of = (pid: number) => consoles.find((pids) => pids === "unknown" ? pid === 99 : pids.includes(pid))
    let joined: ReadonlyArray<number> | "unknown" | undefined = undefined
    const console: ConsoleEvents.Console = {
      join: (pid) => {
        joined = of(pid)
        return joined !== undefined
      },
      leave: () => {
        if (joined !== undefined) log.push("leave")
        joined = undefined
      },
      attached: () => joined === "unknown" ? undefined : joined,
      send: (event) => {
        log.push(`${event} ${String(joined)}`)
        return true
      }
    }
    return {
      log,
      handle: (line: string) =>
        ConsoleEvents.handle(line, console, (answer) => log.push(`= ${answer}`), (ms) => {
          log.push(`wait ${ms}`)
          return Promise.resolve()
        })
    }
  }

  it("each console is given the event once, and left only when its own event must have come", async () => {
    const { handle, log } = on([10, 11], [20])
    await handle("7 break 1 10 11 12 20")
    assert.deepStrictEqual(log, ["break 10,11", "wait 20", "leave", "break 20", "= 7 2", "wait 20", "leave"])
  })

  it("a console that is the host's, or whose processes are not told, is given none", async () => {
    const { handle, log } = on([1, 10], "unknown", [20])
    await handle("7 interrupt 1 10 99 20")
    assert.deepStrictEqual(log, ["leave", "leave", "interrupt 20", "= 7 1", "wait 20", "leave"])
  })
})
