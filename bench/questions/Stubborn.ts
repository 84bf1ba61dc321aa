import { all } from "../Contenders.ts"
import { interleaved, median, ms, type Question, ratio } from "../Report.ts"
import { measureClose, stubborn as tree } from "../Trees.ts"

const count = 20
const grace = 300

export const stubborn: Question = {
  name: "stubborn",
  run: async ({ progress, rounds }) => {
    progress(`${count} stubborn children`)
    const contenders = all()
    const answers = await interleaved(
      Math.min(rounds, 5),
      contenders,
      async (contender) => await measureClose(await contender.open(grace), tree, count)
    )
    await Promise.all(contenders.map((contender) => contender.dispose()))
    return {
      title: `${count} children that ignore SIGTERM, ${grace} ms grace, closed together`,
      text: `In Effect's layer and in Treeline the children are launched in one scope, and the scope is closed; with
\`child_process\` and execa the program asks all of them at once. One grace period is the least that is possible.`,
      columns: ["", "ms, median", "grace periods", "processes left"],
      rows: contenders.map(({ name }, at) => {
        const time = median(answers[at]!.map(({ ms }) => ms))
        return [name, ms(time), ratio(time, grace), String(Math.max(...answers[at]!.map(({ left }) => left)))]
      })
    }
  }
}
