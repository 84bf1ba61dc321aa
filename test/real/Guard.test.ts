/**
 * `treeline guard`, driven by Python programs through the client in examples/guard.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import type { Socket } from "node:net"
import { fileURLToPath } from "node:url"
import { eventually, stays } from "../support/Eventually.ts"
import { fixture, treeCommand, unprivileged, whyNotUnprivileged } from "../support/Host.ts"
import { identify, isAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"

const noPython = Command.whyNoPython()

/** Every program has the client, the guard's command and a way to say something at once. */
const prelude = `
import json, os, signal, subprocess, sys, time
from treeline_guard import *
GUARD = json.loads(os.environ["GUARD"])
def say(*words): print(*words, flush=True)
def launch(command, **options): return launch_with_lifeline(command, guard=GUARD, **options)
`

const python = (script: string, scratch: Scratch.Scratch, env: Record<string, string> = {}) => ({
  argv: [prelude + script],
  options: {
    scratch,
    program: ["python3", "-c"],
    env: {
      PYTHONPATH: fileURLToPath(new URL("../../examples/guard", import.meta.url)),
      PYTHONDONTWRITEBYTECODE: "1",
      GUARD: JSON.stringify(Command.treeline),
      ...env
    }
  }
})

const runPython = (script: string, scratch: Scratch.Scratch, env?: Record<string, string>) => {
  const { argv, options } = python(script, scratch, env)
  return Command.run(argv, options)
}

const startPython = (script: string, scratch: Scratch.Scratch, env?: Record<string, string>) => {
  const { argv, options } = python(script, scratch, env)
  return Command.start(argv, options)
}

/** A role of tree.sh as a Python list. */
const tree = (role: string, scratch: Scratch.Scratch) => JSON.stringify(treeCommand(role, scratch))

/** The guard alone, told everything by hand: `config` is what it reads, the result is what it wrote and its exit code. */
const bareGuard = (config: string, scratch: Scratch.Scratch, args = "", env?: Record<string, string>) =>
  runPython(
    `
l, c, s = os.pipe(), os.pipe(), os.pipe()
p = subprocess.Popen([*GUARD, "guard", f"--lifeline-fd={l[0]}", f"--config-fd={c[0]}", f"--status-fd={s[1]}", ${args}],
                     pass_fds=[l[0], c[0], s[1]], stderr=subprocess.PIPE, text=True)
for fd in (l[0], c[0], s[1]): os.close(fd)
try: os.write(c[1], ${JSON.stringify(config)}.encode())
except BrokenPipeError: pass
os.close(c[1])
status = read_all(s[0]).decode()
os.close(l[1])
err = p.communicate()[1]
say(json.dumps({"status": status, "code": p.returncode, "stderr": err}))
`,
    scratch,
    env
  ).pipe(
    Effect.map(({ stderr, stdout }) => {
      if (stdout === "") throw new Error(stderr)
      return JSON.parse(stdout) as { readonly status: string; readonly code: number; readonly stderr: string }
    })
  )

describe.skipIf(noPython !== undefined)("treeline guard (needs python3)", () => {
  it.live("F1: the program's exit code is passed through", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stderr, stdout } = yield* runPython(
        `
for script in ("exit 0", "exit 7", "exit 255", "kill -TERM $$", "kill -KILL $$"):
    say(launch(["sh", "-c", script], wait=True))
`,
        scratch
      )
      assert.deepStrictEqual([stdout, stderr], ["0\n7\n255\n143\n137\n", ""])
    }))

  it.live("F2: a launch that does not wait is confirmed: the program runs when it returns", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stdout } = yield* runPython(
        `
with launch(["sh", "-c", "echo running >up; exec sleep 60"], wait=False) as guarded:
    say(guarded.guard_pid > 1, guarded._process.poll())
    deadline = time.monotonic() + 10
    while not os.path.exists("up") and time.monotonic() < deadline: time.sleep(0.01)
say(os.path.exists("up"), guarded.wait())
`,
        scratch
      )
      assert.strictEqual(stdout, "True None\nTrue 143\n")
    }))

  it.live("F3: the command never appears in the arguments or the environment of the guard or of its helpers", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const secret = "s3cr3t-of-the-command"
      const started = yield* startPython(
        `
guarded = launch([sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)", "s3cr3t-of" + "-the-command"],
                 wait=False, popen_kwargs={"env": {**os.environ, "TOKEN": "s3cr3t-of" + "-the-command"}})
say("guard", guarded.guard_pid)
sys.stdin.read()
guarded.close()
say("closed")
`,
        scratch
      )
      yield* started.awaitOutput("guard ")
      yield* started.awaitOutput("up")
      const guard = Number(/guard (\d+)/.exec(started.stdout())![1])
      // The guard, and its guardian, which the kernel knows as its child.
      const children = fs.readFileSync(`/proc/${guard}/task/${guard}/children`, "utf8").trim().split(" ").map(Number)
      assert.strictEqual(children.length, 2)
      const shows = (pid: number) =>
        ["cmdline", "environ"].some((file) => fs.readFileSync(`/proc/${pid}/${file}`, "latin1").includes(secret))
      assert.strictEqual([guard, ...children].map(shows).filter(Boolean).length, 1) // the program itself
      assert.strictEqual(shows(guard), false)
      started.input!.end()
      yield* started.awaitOutput("closed")
    }))

  it.live("F4: a missing or unusable program is reported before the launch returns", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      fs.writeFileSync(scratch.file("plain.txt"), "no program", { mode: 0o644 })
      const { stdout } = yield* runPython(
        `
for wait in (True, False):
    for command, kwargs in ((["no-such-program", "secret"], {}), (["./plain.txt"], {}), (["true"], {"cwd": "/no/such/folder"})):
        try: say("launched", launch(command, wait=wait, popen_kwargs=kwargs))
        except LaunchError as error: say(error)
`,
        scratch
      )
      const lines = stdout.trim().split("\n")
      assert.deepStrictEqual(lines.slice(0, 3), lines.slice(3))
      assert.match(lines[0]!, /could not start no-such-program: .*\(NotFound\)/)
      assert.include(lines[1], "(PermissionDenied)")
      assert.include(lines[2], "(BadWorkingDirectory)")
      assert.notInclude(stdout, "secret")
    }))

  it.live("F5: DEVNULL stays /dev/null, and what is inherited is inherited", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stderr, stdout } = yield* runPython(
        `
look = "for fd in 0 1 2; do readlink /proc/self/fd/$fd; done >links; echo out; echo err >&2; cat"
D = subprocess.DEVNULL
launch(["sh", "-c", look], wait=True, popen_kwargs={"stdin": D, "stdout": D, "stderr": D})
say(open("links").read().split()[0], open("links").read().split()[2])
launch(["sh", "-c", "cat; echo err >&2"], wait=True, popen_kwargs={"stdin": None})
`,
        scratch
      )
      assert.deepStrictEqual([stdout, stderr], ["/dev/null /dev/null\n", "err\n"])
    }))

  it.live.each(["grandchild", "session", "daemon", "cleared"])(
    "F6: when the lifeline ends, the tree ends: %s",
    (role) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const started = yield* startPython(
          `
guarded = launch(${tree(role, scratch)}, wait=False)
sys.stdin.read()
say("code", guarded.close())
`,
          scratch
        )
        yield* scratch.awaitReported(role === "cleared" || role === "daemon" ? 2 : 3)
        yield* eventually("the tree lives", () => scratch.living().length >= 2)
        started.input!.end()
        yield* started.awaitOutput("code 143")
        assert.deepStrictEqual(scratch.living(), [])
      })
  )

  it.live("F6: the same when the parent is killed", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* startPython(
        `
launch(${tree("session", scratch)}, wait=False)
say("launched")
time.sleep(60)
`,
        scratch
      )
      yield* started.awaitOutput("launched")
      yield* scratch.awaitReported(3)
      started.signal("SIGKILL")
      yield* scratch.awaitNoneLiving()
    }))

  it.live("control: without the guard the tree survives its parent", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* startPython(
        `
subprocess.Popen(${tree("session", scratch)})
say("launched")
time.sleep(60)
`,
        scratch
      )
      yield* started.awaitOutput("launched")
      yield* scratch.awaitReported(3)
      started.signal("SIGKILL")
      yield* stays("all live", () => scratch.living().length === 3, 500)
    }))

  it.live("F7: a program that ignores SIGTERM is killed after the grace time, and not before", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* startPython(
        `
guarded = launch(${tree("stubborn", scratch)}, wait=False, termination_grace_period=0.7)
sys.stdin.read()
guarded.terminate()
say("let go")
say("code", guarded.wait())
`,
        scratch
      )
      yield* scratch.awaitReported(2)
      const stubborn = yield* scratch.awaitNamed("stubborn")
      started.input!.end()
      yield* started.awaitOutput("let go")
      yield* stays("it lives through the grace time", () => isAlive(stubborn), 450)
      yield* started.awaitOutput("code 137")
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("F8: when the leader returns 0, what it left gets SIGTERM and time to clean up; the code stays 0", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stdout } = yield* runPython(
        `
child = "trap 'sleep 0.2; echo clean >cleaned; exit' TERM; echo child $$ >>report; while :; do sleep 0.05; done"
say(launch(["sh", "-c", 'sh -c "$1" & while ! grep -q child report; do sleep 0.02; done', "sh", child], wait=True))
say(open("cleaned").read().strip())
`,
        scratch
      )
      assert.strictEqual(stdout, "0\nclean\n")
      yield* scratch.awaitReported(1)
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live.each([3, 40, 400])(
    "F9: the program inherits none of the three descriptors, whatever their numbers: %i",
    (least) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const { stdout } = yield* runPython(
          `
import fcntl
real = os.pipe
def pipe():
    ends = real()
    moved = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ${least}) for fd in ends)
    for fd in ends: os.close(fd)
    return moved
os.pipe = pipe
import treeline_guard
pipes = []
def noted():
    ends = pipe(); pipes.append(os.readlink(f"/proc/self/fd/{ends[0]}")); return ends
os.pipe = noted
look = "import os\\nfor fd in os.listdir('/proc/self/fd'):\\n try: print(os.readlink('/proc/self/fd/'+fd))\\n except OSError: pass"
os.environ["LOOK"] = look
launch([sys.executable, "-c", look + "\\nimport sys; sys.stdout.flush()"], wait=True)
say("pipes", *pipes)
`,
          scratch
        )
        const pipes = /pipes (.*)/.exec(stdout)![1]!.split(" ")
        assert.isAtLeast(pipes.length, 3)
        const open = stdout.slice(0, stdout.indexOf("pipes ")).trim().split("\n")
        assert.isAtLeast(open.length, 3)
        assert.deepStrictEqual(open.filter((name) => pipes.includes(name)), [])
      })
  )

  it.live.each(["close_fds", "pass_fds", "preexec_fn", "process_group", "start_new_session"])(
    "F10: %s is refused by name, by the client and by the guard",
    (name) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const client = yield* runPython(
          `
try: launch(["touch", "ran"], wait=True, popen_kwargs={"${name}": False})
except ValueError as error: say(error)
`,
          scratch
        )
        assert.include(client.stdout, name)
        const config = JSON.stringify({ command: ["touch", "ran"], popen_kwargs: { [name]: false } })
        const guard = yield* bareGuard(config, scratch)
        assert.strictEqual(guard.code, 2)
        assert.deepStrictEqual(JSON.parse(guard.status), {
          ok: false,
          error: `popen_kwargs.${name} is set by the guard and can't be overridden`
        })
        assert.strictEqual(guard.stderr, `treeline: popen_kwargs.${name} is set by the guard and can't be overridden\n`)
        assert.strictEqual(fs.existsSync(scratch.file("ran")), false)
      })
  )

  it.live("F11: names that are no strings, circular values and unusable stdio are refused by the client", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stdout } = yield* runPython(
        `
loop = {}; loop["env"] = loop
for kwargs in ({1: "x"}, {"env": loop}, {"stdout": subprocess.PIPE}, {"stdin": 99}, {"stderr": subprocess.STDOUT}):
    try: say("launched", launch(["touch", "ran"], wait=True, popen_kwargs=kwargs))
    except (TypeError, ValueError) as error: say("refused")
`,
        scratch
      )
      assert.strictEqual(stdout, "refused\n".repeat(5))
      assert.strictEqual(fs.existsSync(scratch.file("ran")), false)
    }))

  it.live.each([
    ["", "the configuration is empty"],
    ["{\"command\": [\"secret", "the configuration is not JSON"],
    ["[\"secret\"]", "the configuration must be a JSON object with \"command\" and, if wanted, \"popen_kwargs\""],
    ["{}", "command must be a list of strings with the program first"],
    ["{\"command\":[]}", "command must be a list of strings with the program first"],
    ["{\"command\":\"secret\"}", "command must be a list of strings with the program first"],
    ["{\"command\":[\"secret\",1]}", "command must be a list of strings with the program first"],
    ["{\"command\":[\"secret\"],\"x\":1}", "x is no field of the guard"],
    ["{\"command\":[\"secret\"],\"popen_kwargs\":7}", "popen_kwargs must be an object"],
    [
      "{\"command\":[\"secret\"],\"popen_kwargs\":{\"shell\":true}}",
      "popen_kwargs.shell is not an option of the guard"
    ],
    [
      "{\"command\":[\"secret\"],\"popen_kwargs\":{\"stdout\":3}}",
      "popen_kwargs.stdout must be \"inherit\" or \"devnull\""
    ],
    ["{\"command\":[\"secret\"],\"popen_kwargs\":{\"cwd\":[\"secret\"]}}", "popen_kwargs.cwd must be a string"],
    [
      "{\"command\":[\"secret\"],\"popen_kwargs\":{\"env\":{\"TOKEN\":[\"secret\"]}}}",
      "popen_kwargs.env must be an object of strings"
    ]
  ])(
    "F11: the configuration %s is refused in words that hold no value of it",
    ([config, problem]) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const { code, status, stderr } = yield* bareGuard(config!, scratch)
        assert.deepStrictEqual(JSON.parse(status), { ok: false, error: problem })
        assert.deepStrictEqual([code, stderr], [2, `treeline: ${problem}\n`])
      })
  )

  it.live("F11: descriptors that can't be used are refused", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      for (
        const [fds, problem] of [
          [["3", "3", "4"], "must be three descriptors"],
          [["0", "3", "4"], "0, 1 and 2 belong to the program"],
          [["77", "78", "79"], "descriptor 77 is not open"],
          [["-3", "4", "5"], "0, 1 and 2 belong to the program"],
          [["x", "4", "5"], "--lifeline-fd"]
        ] as const
      ) {
        const argv = ["guard", `--lifeline-fd=${fds[0]}`, `--config-fd=${fds[1]}`, `--status-fd=${fds[2]}`]
        const outcome = yield* Command.run(argv, { scratch })
        assert.deepStrictEqual([outcome.code, outcome.stdout], [2, ""])
        assert.include(outcome.stderr, problem)
      }
    }))

  it.live.each(["-1", "-0.5", "nan", "inf", "-inf", "soon", ""])(
    "F12: a grace period of \"%s\" is refused, never taken for \"kill now\"",
    (grace) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        for (const flag of [`"--termination-grace-period=${grace}"`, `"--termination-grace-period", "${grace}"`]) {
          const guard = yield* bareGuard("{\"command\":[\"touch\",\"ran\"]}", scratch, flag)
          assert.deepStrictEqual([guard.code, guard.status], [2, ""])
          assert.include(guard.stderr, "termination-grace-period")
        }
        assert.strictEqual(fs.existsSync(scratch.file("ran")), false)
      })
  )

  it.live("F12: the client refuses the same before it starts anything", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stdout } = yield* runPython(
        `
for grace in (-1, float("nan"), float("inf"), "5", True):
    try: say("launched", launch(["touch", "ran"], wait=True, termination_grace_period=grace))
    except (TypeError, ValueError) as error: say("refused")
`,
        scratch
      )
      assert.strictEqual(stdout, "refused\n".repeat(5))
    }))

  it.live("F13, F15: a system that is not POSIX is refused before anything is read or started", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const preload = "data:text/javascript,Object.defineProperty(process,'platform',{value:'win32'})"
      const elsewhere = [process.execPath, "--import", preload, ...Command.treeline.slice(1)]
      const guard = yield* bareGuard("{\"command\":[\"touch\",\"ran\"]}", scratch, "", {
        GUARD: JSON.stringify(elsewhere)
      })
      assert.deepStrictEqual(guard, { status: "", code: 2, stderr: "treeline: treeline guard needs a POSIX system\n" })
      assert.strictEqual(fs.existsSync(scratch.file("ran")), false)
    }))

  it.live("F14: a guard that never reports is ended and reaped by the client", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stdout } = yield* runPython(
        `
fake = ["sh", "-c", "echo guard $$ >>report; exec sleep 60 >/dev/null 2>&1"]
script = ["sh", "-c", 'echo guard $$ >>report; exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec sleep 60', "sh"]
try: launch_with_lifeline(["true"], wait=True, guard=script, termination_grace_period=0.1)
except LaunchError as error: say(error)
try: os.waitpid(-1, 0)
except ChildProcessError: say("reaped")
`,
        scratch
      )
      assert.strictEqual(stdout, "the guard exited before reporting\nreaped\n")
      yield* scratch.awaitReported(1)
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("F14: a status pipe that nobody reads any more does not disturb the program", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stdout } = yield* runPython(
        `
l, c, s = os.pipe(), os.pipe(), os.pipe()
p = subprocess.Popen([*GUARD, "guard", f"--lifeline-fd={l[0]}", f"--config-fd={c[0]}", f"--status-fd={s[1]}"], pass_fds=[l[0], c[0], s[1]])
os.close(s[0]); os.close(s[1])
os.write(c[1], b'{"command":["sh","-c","echo ran; exit 5"]}'); os.close(c[1])
say(p.wait())
`,
        scratch
      )
      assert.strictEqual(stdout, "ran\n5\n")
    }))

  it.live("a large configuration in small pieces is read whole", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stdout } = yield* runPython(
        `
env = {"PATH": os.environ["PATH"], **{f"V{i}": "x" * 1000 for i in range(300)}}
say(launch(["sh", "-c", "env | grep -c ^V"], wait=True, popen_kwargs={"env": env}))
`,
        scratch
      )
      assert.strictEqual(stdout, "300\n0\n")
    }))

  it.live("F17: settings of the program are kept: cwd and env", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      fs.mkdirSync(scratch.file("inner"))
      const { stdout } = yield* runPython(
        `
kwargs = {"cwd": "inner", "env": {"PATH": os.environ["PATH"], "ONLY": "this"}}
launch(["sh", "-c", "basename \\"$PWD\\"; echo $ONLY; echo home=$HOME"], wait=True, popen_kwargs=kwargs)
say(kwargs["cwd"])
`,
        scratch
      )
      assert.strictEqual(stdout, "inner\nthis\nhome=\ninner\n")
    }))

  it.live("SIGTERM to the guard ends the tree as well", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* startPython(
        `
guarded = launch(${tree("session", scratch)}, wait=False)
say("launched")
sys.stdin.readline()
os.kill(guarded.guard_pid, signal.SIGTERM)
say("code", guarded.wait())
sys.stdin.read()
`,
        scratch
      )
      yield* scratch.awaitReported(3)
      yield* started.awaitOutput("launched")
      started.input!.write("\n")
      yield* started.awaitOutput("code 143")
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("P9: SIGKILL to the guard ends the tree as well", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* startPython(
        `
guarded = launch(${tree("daemon", scratch)}, wait=False, termination_grace_period=0.2)
say("launched")
sys.stdin.readline()
os.kill(guarded.guard_pid, signal.SIGKILL)
say("code", guarded.wait())
`,
        scratch
      )
      yield* scratch.awaitReported(2)
      yield* started.awaitOutput("launched")
      started.input!.write("\n")
      yield* started.awaitOutput("code -9")
      yield* scratch.awaitNoneLiving()
    }))

  const asNobody = ["--reuid", String(unprivileged), "--regid", String(unprivileged), "--clear-groups"]

  /** A copy of setpriv that anyone may run as root: with it a tree gets a member that its guard may not signal. */
  const becomesRoot = (scratch: Scratch.Scratch): string | undefined => {
    const copy = scratch.file("become-root")
    const original = child_process.spawnSync("sh", ["-c", "command -v setpriv"], { encoding: "utf8" }).stdout.trim()
    fs.copyFileSync(original, copy)
    fs.chmodSync(copy, 0o4755)
    const test = child_process.spawnSync("setpriv", [...asNobody, copy, "--reuid=0", "id", "-u"], { encoding: "utf8" })
    return test.stdout?.trim() === "0" ? copy : undefined
  }

  it.live.skipIf(whyNotUnprivileged() !== undefined)(
    "F16, K6: a process that may not be signalled is an error and not \"gone\" (needs root to set up)",
    (context) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const becomeRoot = becomesRoot(scratch)
        if (becomeRoot === undefined) return context.skip("the temporary folder does not honour set-user-id programs")
        const { child, errors, exitCode } = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const [node, ...rest] = Command.treeline
            const options = ["--lifeline-fd=3", "--config-fd=4", "--status-fd=5", "--termination-grace-period=0.2"]
            const child = child_process.spawn("setpriv", [...asNobody, node!, ...rest, "guard", ...options], {
              stdio: ["ignore", "ignore", "pipe", "pipe", "pipe", "pipe"],
              env: Command.environment(scratch)
            })
            const result = { child, errors: "", exitCode: undefined as number | null | undefined }
            child.stderr!.on("data", (chunk: Buffer) => (result.errors += chunk.toString()))
            child.on("close", (code) => (result.exitCode = code))
            return { child, errors: () => result.errors, exitCode: () => result.exitCode }
          }),
          ({ child }) =>
            Effect.sync(() => {
              if (child.exitCode === null) child.kill("SIGKILL")
              for (const stream of child.stdio) stream?.destroy()
            })
        )
        const [lifeline, config, status] = child.stdio.slice(3) as Array<Socket>
        status!.resume()
        const command = [becomeRoot, "--reuid=0", "sh", fixture("tree.sh"), "plain", scratch.report]
        config!.end(JSON.stringify({ command, popen_kwargs: { stdout: "devnull", stderr: "devnull" } }))
        const member = yield* scratch.awaitNamed("plain")
        lifeline!.end()
        yield* eventually("the guard gives up", () => exitCode() !== undefined)
        assert.strictEqual(exitCode(), 2)
        assert.match(errors(), new RegExp(`^treeline: could not end ${member.pid} \\(\\w+\\)\\n$`))
        assert.isDefined(identify(member.pid))
      })
  )
})
