/**
 * The daemon as a service of the system's own manager, as text: a systemd user unit, a launchd agent, or a task of Windows.
 * Nothing is read or written here.
 */

export type Manager = "systemd" | "launchd" | "windows"

export interface Service {
  /** Letters, digits and dashes. */
  readonly name: string
  /** Program and arguments, all paths absolute. */
  readonly command: ReadonlyArray<string>
  /** Ends what a daemon that died has left. */
  readonly stop: ReadonlyArray<string>
  readonly directory: string
  /** The configuration file, for people. */
  readonly config: string
  /** Whose logon starts it on Windows, `DOMAIN\NAME`; undefined where that is not known. */
  readonly user: string | undefined
  /** Where launchd puts what it says before it has a log. */
  readonly errors: string
  /** How long its orderly end may take, in ms. */
  readonly grace: number
  /** It can tell systemd when it is ready and that it is alive. */
  readonly notifies: boolean
  /** It has services that go on when it ends. */
  readonly keeps: boolean
  /** Exit codes after which it is not started again: nothing would be different. */
  readonly permanentFailures: ReadonlyArray<number>
}

/** Where it is written, from the user's home folder, and what a person does then. */
export interface Unit {
  readonly file: string
  readonly text: string
  readonly next: ReadonlyArray<string>
}

/** How often systemd hears that it is alive, at the least, in s. */
export const watchdogSeconds = 30

/** A word of a command line; `%` and `$` mean something to systemd (systemd.service(5), "Command lines"). */
const systemdWord = (word: string): string =>
  `"${word.replaceAll(/["\\]/g, "\\$&").replaceAll("%", "%%").replaceAll("$", "$$$$")}"`

/** A path after `=`: `%` is a specifier (systemd.unit(5)). */
const systemdText = (text: string): string => text.replaceAll("%", "%%")

/** Not after a death, from which they go on (systemd.exec(5), `$SERVICE_RESULT`). */
const afterTimeout = "[ \"$SERVICE_RESULT\" != timeout ] || exec \"$@\""

const systemd = (service: Service): Unit => {
  const stop = Math.ceil(service.grace / 1000)
  return {
    file: `.config/systemd/user/${service.name}.service`,
    text: [
      "[Unit]",
      `Description=Treeline: the services of ${systemdText(service.config)}`,
      "",
      "[Service]",
      ...service.notifies
        ? ["Type=notify", "NotifyAccess=main", `WatchdogSec=${watchdogSeconds}`]
        : ["Type=exec"],
      `ExecStart=${service.command.map(systemdWord).join(" ")}`,
      "ExecReload=/bin/kill -HUP $MAINPID",
      `WorkingDirectory=${systemdText(service.directory)}`,
      "Restart=on-failure",
      `RestartPreventExitStatus=${service.permanentFailures.join(" ")}`,
      // Treeline's own guardians end what is left of any other service.
      ...service.keeps
        ? [
          "# The daemon ends its services in their order; those with whenDaemonEnds \"keep\" go on when it dies.",
          "KillMode=process",
          "# When the end takes too long the daemon is killed, and those are ended after it.",
          `ExecStopPost=-/bin/sh -c ${[afterTimeout, "sh", ...service.stop].map(systemdWord).join(" ")}`
        ]
        : ["# The daemon ends its services in their order; what is left after that is killed.", "KillMode=mixed"],
      `TimeoutStopSec=${stop}`,
      "",
      "[Install]",
      "WantedBy=default.target",
      ""
    ].join("\n"),
    next: [
      "systemctl --user daemon-reload",
      `systemctl --user enable --now ${service.name}`,
      "loginctl enable-linger   # so that it runs when nobody is logged in"
    ]
  }
}

const xml = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\"", "&quot;")

const launchd = (service: Service): Unit => ({
  file: `Library/LaunchAgents/${service.name}.plist`,
  text: `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>${xml(service.name)}</string>
  <key>ProgramArguments</key>
  <array>
${service.command.map((word) => `    <string>${xml(word)}</string>`).join("\n")}
  </array>
  <key>WorkingDirectory</key>
  <string>${xml(service.directory)}</string>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <key>ExitTimeOut</key>
  <integer>${Math.ceil(service.grace / 1000)}</integer>
  <key>StandardErrorPath</key>
  <string>${xml(service.errors)}</string>
</dict>
</plist>
`,
  next: [`launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/${service.name}.plist`]
})

/** A word as Windows programs split it (CommandLineToArgvW). */
const windowsWord = (word: string): string =>
  /^[^\s"]+$/.test(word) ? word : `"${word.replaceAll(/(\\*)"/g, "$1$1\\\"").replace(/(\\*)$/, "$1$1")}"`

/** The class of ordinary programs; the default of a task, 7, is below it, and all that it starts would be, too. */
const normalPriority = 5

const windows = (service: Service): Unit => {
  const [program = "", ...args] = service.command
  // Without a user anybody's logon starts it, which only an administrator may ask for.
  const user = service.user === undefined ? "" : `\n      <UserId>${xml(service.user)}</UserId>`
  return {
    file: `AppData/Local/treeline/${service.name}.xml`,
    text: `<?xml version="1.0" encoding="UTF-8"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>Treeline: the services of ${xml(service.config)}</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>${user}
    </LogonTrigger>
  </Triggers>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Priority>${normalPriority}</Priority>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>3</Count>
    </RestartOnFailure>
  </Settings>
  <Actions>
    <Exec>
      <Command>${xml(program)}</Command>
      <Arguments>${xml(args.map(windowsWord).join(" "))}</Arguments>
      <WorkingDirectory>${xml(service.directory)}</WorkingDirectory>
    </Exec>
  </Actions>
</Task>
`,
    next: [`schtasks /Create /TN ${service.name} /XML "%LOCALAPPDATA%\\treeline\\${service.name}.xml"`]
  }
}

const units: Readonly<Record<Manager, (service: Service) => Unit>> = { systemd, launchd, windows }

/** The unit for a manager. */
export const unitOf = (manager: Manager, service: Service): Unit => units[manager](service)

/** The manager of a system. */
export const managerOf = (platform: NodeJS.Platform): Manager =>
  platform === "win32" ? "windows" : platform === "darwin" ? "launchd" : "systemd"
