import { expect, test } from "tstyche"

test("type tests run", () => {
  expect<ReadonlyArray<string>>().type.toBeAssignableFrom<Array<string>>()
})
