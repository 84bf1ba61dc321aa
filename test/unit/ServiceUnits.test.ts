/** What a service manager is given, as text. */
import { assert, describe, it } from "@effect/vitest"
import { addressOf } from "../../packages/platform-posix/src/ServiceNotify.ts"
import * as ServiceUnits from "../../packages/treeline/src/internal/ServiceUnits.ts"

const service: ServiceUnits.Service = {
  name: "treeline-shop",
  command: [
    "/usr/bin/node",
    "/opt/100% treeline/bin.js",
    "daemon",
    "run",
    "--config",
    "/srv/shop/$HOME \"x\"/treeline.json"
  ],
  stop: ["/usr/bin/node", "/opt/100% treeline/bin.js", "daemon", "stop"],
  directory: "/srv/shop",
  config: "/srv/shop/treeline.json",
  user: "SHOP\\anna",
  errors: "/srv/shop/.treeline/daemon.err",
  grace: 65_500,
  notifies: true,
  keeps: false,
  permanentFailures: [2, 4]
}

describe("service units", () => {
  it("systemd: quoted words, readiness, watchdog, an end that takes as long as the daemon's", () => {
    const { file, text } = ServiceUnits.unitOf("systemd", service)
    assert.strictEqual(file, ".config/systemd/user/treeline-shop.service")
    assert.include(
      text,
      "ExecStart=\"/usr/bin/node\" \"/opt/100%% treeline/bin.js\" \"daemon\" \"run\" \"--config\" " +
        "\"/srv/shop/$$HOME \\\"x\\\"/treeline.json\"\n"
    )
    for (
      const line of [
        "Type=notify",
        "NotifyAccess=main",
        "WatchdogSec=30",
        "TimeoutStopSec=66",
        "KillMode=mixed",
        "RestartPreventExitStatus=2 4"
      ]
    ) assert.include(text, `${line}\n`)
    const without = ServiceUnits.unitOf("systemd", { ...service, notifies: false }).text
    assert.include(without, "Type=exec\n")
    assert.notInclude(without, "Watchdog")
    assert.notInclude(text, "ExecStopPost")
    const keeps = ServiceUnits.unitOf("systemd", { ...service, keeps: true }).text
    assert.include(keeps, "KillMode=process\n")
    assert.include(
      keeps,
      "ExecStopPost=-/bin/sh -c \"[ \\\"$$SERVICE_RESULT\\\" != timeout ] || exec \\\"$$@\\\"\" \"sh\" " +
        "\"/usr/bin/node\" \"/opt/100%% treeline/bin.js\" \"daemon\" \"stop\"\n"
    )
  })

  it("launchd: words apart, and escaped", () => {
    const { text } = ServiceUnits.unitOf("launchd", service)
    assert.include(text, "<string>/srv/shop/$HOME &quot;x&quot;/treeline.json</string>")
    assert.include(text, "<integer>66</integer>")
  })

  it("Windows: one line that its programs split into the same words", () => {
    const { text } = ServiceUnits.unitOf("windows", { ...service, command: ["C:\\node.exe", "C:\\a b\\", "--x"] })
    assert.include(text, "<Command>C:\\node.exe</Command>")
    assert.include(text, "<Arguments>&quot;C:\\a b\\\\&quot; --x</Arguments>")
  })

  it("Windows: the logon of one user starts it, at the priority of ordinary programs", () => {
    const { text } = ServiceUnits.unitOf("windows", { ...service, user: "R&D\\anna" })
    assert.match(text, /<Enabled>true<\/Enabled>\n +<UserId>R&amp;D\\anna<\/UserId>\n +<\/LogonTrigger>/)
    assert.include(text, "<Priority>5</Priority>")
    assert.notInclude(ServiceUnits.unitOf("windows", { ...service, user: undefined }).text, "UserId")
  })

  it("the address of a notification socket is that of unix(7)", () => {
    assert.deepStrictEqual([...addressOf("/a")!], [1, 0, 47, 97, 0])
    assert.deepStrictEqual([...addressOf("@a")!], [1, 0, 0, 97])
    assert.isUndefined(addressOf("vsock:2:1"))
    assert.isUndefined(addressOf(`/${"a".repeat(108)}`))
  })
})
