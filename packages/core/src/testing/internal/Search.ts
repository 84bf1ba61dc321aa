/** Draws, runs, and makes what fails smaller: what all checks of lifecycles have in common. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Outcome } from "./Runner.ts"
import * as Shrink from "./Shrink.ts"

/** Lines of a story that a failure shows: what is said last is next to what went wrong. */
const shownLines = 120

const shorten = (story: string): string => {
  const lines = story.split("\n")
  return lines.length <= shownLines ? story : ["...", ...lines.slice(-shownLines)].join("\n")
}

/** A lifecycle broke a promise; `script` is a test that shows it again. */
export class LifecycleViolation extends Schema.TaggedError<LifecycleViolation>()("LifecycleViolation", {
  invariant: Schema.String,
  detail: Schema.String,
  runs: Schema.Int,
  script: Schema.String,
  story: Schema.String
}) {
  override get message(): string {
    return `${this.invariant}: ${this.detail} (found in run ${this.runs})\n${this.script}\n${this.story}`
  }
}

/** What a check has run. */
export interface Report {
  readonly seed: number
  readonly runs: number
  readonly starts: number
}

/** The failure that tells of the first violation, or of the first of this invariant. */
const failure = (
  outcome: Outcome,
  runs: number,
  script: () => string,
  invariant?: string
): Option.Option<LifecycleViolation> => {
  const violation = outcome.violations.find((one) => one.invariant === invariant) ?? outcome.violations[0]
  return violation === undefined ? Option.none() : Option.some(
    new LifecycleViolation({
      invariant: violation.invariant,
      detail: violation.detail,
      runs,
      script: script(),
      story: shorten(outcome.story)
    })
  )
}

export const failIf = (outcome: Outcome, script: string): Effect.Effect<Outcome, LifecycleViolation> =>
  Option.match(failure(outcome, 1, () => script), { onNone: () => Effect.succeed(outcome), onSome: Effect.fail })

/** Draws and runs until a run breaks a promise, and fails with the smallest one that was found to break it too. */
export const search = <S, E, R>(options: {
  readonly seed: number
  readonly runs: number
  readonly shrinks: number
  readonly draw: (seed: number) => S
  readonly run: (one: S) => Effect.Effect<Outcome, E, R>
  readonly smaller: (one: S) => Iterable<S>
  readonly script: (one: S) => string
}): Effect.Effect<Report, E | LifecycleViolation, R> =>
  Effect.gen(function*() {
    const { draw, run, runs, script, seed, shrinks, smaller } = options
    let starts = 0
    for (let index = 0; index < runs; index++) {
      const one = draw(seed + index)
      const outcome = yield* run(one)
      starts += outcome.starts
      const found = failure(outcome, index + 1, () => script(one))
      if (Option.isNone(found)) continue
      const { invariant } = found.value
      const fails = (candidate: S) =>
        Effect.map(run(candidate), ({ violations }) => violations.some((one) => one.invariant === invariant))
      const smallest = yield* Shrink.shrink(one, smaller, fails, shrinks)
      if (smallest === one) return yield* found.value
      return yield* Option.getOrElse(
        failure(yield* run(smallest), index + 1, () => script(smallest), invariant),
        () => found.value
      )
    }
    return { seed, runs, starts }
  })
