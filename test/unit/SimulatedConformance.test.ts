/** The conformance suite on the simulated platform, at each of its levels; takes no real time. */
import { ActorConformance, Conformance, SimulatedPlatform } from "@treeline/core/testing"
import { Effect } from "effect"

const { Simulation } = SimulatedPlatform

for (const level of ["group", "marked", "tagged", "sealed"] as const) {
  const name = `SimulatedPlatform, ${level}`
  const layer = SimulatedPlatform.layer({ level })
  const capabilities: Conformance.Capabilities<SimulatedPlatform.Simulation> = {
    programs: SimulatedPlatform.programs,
    level,
    time: "simulated",
    signals: true,
    escapes: true,
    additionalFds: true,
    release: true,
    directory: "/tmp",
    isAlive: (pid) =>
      Simulation.use((simulation) =>
        Effect.map(simulation.alive, (alive) => alive.some((process) => process.pid === pid))
      ),
    kill: (pid) => Simulation.use((simulation) => Effect.asVoid(simulation.kill(pid)))
  }
  Conformance.suite(name, layer, capabilities)
  ActorConformance.suite(name, layer, capabilities)
}
