import { all } from "../Contenders.ts"
import { interleaved, median, ms, quantile, type Question } from "../Report.ts"
import {
  lingering as lingeringTree,
  measureClose,
  measureOwnDyingTime,
  obedient,
  orphaning,
  type Tree
} from "../Trees.ts"

/** SIGKILL is no part of this question: every tree ends on SIGTERM. */
const grace = 5000

const question = (name: string, title: string, text: string, tree: Tree): Question => ({
  name,
  run: async ({ progress, rounds }) => {
    progress(title)
    const contenders = all()
    const own: Array<number> = []
    const answers = await interleaved(rounds, [undefined, ...contenders], async (contender) => {
      if (contender === undefined) {
        own.push(await measureOwnDyingTime(tree))
        return { ms: own.at(-1)!, left: 0, said: [] }
      }
      return await measureClose(await contender.open(grace), tree)
    })
    await Promise.all(contenders.map((contender) => contender.dispose()))
    const ownTime = median(own)
    return {
      title,
      text,
      columns: ["", "ms, median", "p90", "above the tree's own, ms", "processes left"],
      rows: ["the tree's own dying time", ...contenders.map(({ name }) => name)].map((name, at) => {
        const times = answers[at]!.map(({ ms }) => ms)
        const left = Math.max(...answers[at]!.map(({ left }) => left))
        return [
          name,
          ms(median(times)),
          ms(quantile(times, 0.9)),
          at === 0 || left > 0 ? "-" : ms(median(times) - ownTime),
          String(left)
        ]
      })
    }
  }
})

export const close = question(
  "close",
  "Closing a tree that obeys SIGTERM",
  "A leader with two children; it ends when they have ended. Measured from the order to the library's \"done\".",
  obedient
)

export const orphans = question(
  "orphans",
  "Closing a tree whose leader ends first",
  `The leader ends at once and its two children die as orphans. Where the system's first process collects orphans slowly
or never, as in many containers, their zombies stay, and a library that asks whether the process group still exists
waits for its own limit.`,
  orphaning
)

export const lingering = question(
  "lingering",
  "Closing a tree whose leader ends first and whose children take 30 ms",
  "As before, but the children do something for 30 ms when they get SIGTERM: how late is their end seen?",
  lingeringTree
)
