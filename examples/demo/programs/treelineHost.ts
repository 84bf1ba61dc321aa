/** A host that starts the demo's tree through Treeline and is then killed; it never gets to clean up. */
import { Output, ProcessPlatform } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Stream } from "effect"
import { command } from "../Tree.ts"

const host = Effect.gen(function*() {
  const platform = yield* ProcessPlatform.ProcessPlatform
  const tree = yield* platform.launch(command)
  yield* Stream.runForEach(Output.lines(tree.stdout.stream), (line) => Effect.sync(() => console.log(line)))
})
await Effect.runPromise(host.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
