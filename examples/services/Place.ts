/**
 * Where the services are: one folder with all that they write. The ports that were free at first are kept there, in
 * `settings.json`, because every command of `treeline` reads the configuration, and all have to find the same.
 */
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"

/** What may be changed by hand; then `treeline reload`. */
export interface Settings {
  readonly greeting: string
  readonly ports: { readonly cache: number; readonly web: number; readonly proxy: number }
}

export interface Place extends Settings {
  readonly folder: string
}

const listen = () =>
  new Promise<net.Server>((resolve, reject) => {
    const server = net.createServer().once("error", reject)
    server.listen(0, "127.0.0.1", () => resolve(server))
  })

/** Ports that nobody uses now, each another one. */
const freePorts = async (count: number): Promise<ReadonlyArray<number>> => {
  const servers = await Promise.all(Array.from({ length: count }, listen))
  return Promise.all(servers.map((server) =>
    new Promise<number>((resolve) => {
      const { port } = server.address() as net.AddressInfo
      server.close(() => resolve(port))
    })
  ))
}

const writeFirst = async (file: string): Promise<void> => {
  const [cache = 0, web = 0, proxy = 0] = await freePorts(3)
  const settings: Settings = { greeting: "hello", ports: { cache, web, proxy } }
  fs.writeFileSync(file, `${JSON.stringify(settings, null, 2)}\n`, { flag: "wx" })
}

/** The folder is `SERVICES_FOLDER`, or one in the temporary folder. */
export const open = async (): Promise<Place> => {
  const user = process.getuid?.() ?? 0
  const folder = path.resolve(process.env["SERVICES_FOLDER"] ?? path.join(os.tmpdir(), `treeline-services-${user}`))
  fs.mkdirSync(folder, { recursive: true, mode: 0o755 })
  if (fs.statSync(folder).uid !== user) {
    throw new Error(`${folder} belongs to another user; name one in SERVICES_FOLDER`)
  }
  const file = path.join(folder, "settings.json")
  if (!fs.existsSync(file)) await writeFirst(file)
  return { folder, ...JSON.parse(fs.readFileSync(file, "utf8")) as Settings }
}
