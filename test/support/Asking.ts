/** Who answers where a daemon of a test listens: it tells `PID VERSION` to whoever connects. */
import type { Answer } from "@treeline/core/daemon/Daemon"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as net from "node:net"

/** The address is a socket's path, or on Windows a pipe's name. */
export const ask = (address: string): Effect.Effect<Option.Option<Answer>> =>
  Effect.callback<Option.Option<Answer>>((resume) => {
    let text = ""
    const connection = net.connect(address)
    connection.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
    connection.on("error", () => resume(Effect.succeedNone))
    connection.on("close", () => {
      const [pid, version] = text.trim().split(" ")
      resume(version === undefined ? Effect.succeedNone : Effect.succeedSome({ pid: Number(pid), version }))
    })
    return Effect.sync(() => connection.destroy())
  }).pipe(Effect.timeoutOption("1 second"), Effect.map(Option.flatten))
