// One server as a real process: start, stop, kill, freeze and restart it on the same data and the same ports.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const SUPERVISOR = fileURLToPath(new URL('supervise.sh', import.meta.url));
const READY_POLL_MS = 50;
const LOG_TAIL_LINES = 25;

export interface ServerSpec {
  readonly name: string;
  /** What a client connects to. */
  readonly address: string;
  /** The program and its arguments; the same at every start, so that data and ports stay. */
  readonly command: readonly [string, ...string[]];
  readonly dataDir: string;
  readonly logFile: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Asks the server itself; rejects as long as it does not answer as it should. */
  readonly ready: () => Promise<void>;
  /** How long the first answer may take. @default 120000 */
  readonly startLimitMs?: number;
  /** How long `stop()` waits after SIGTERM before it kills. @default 20000 */
  readonly stopLimitMs?: number;
}

export class ServerProcess {
  readonly name: string;
  readonly address: string;
  readonly dataDir: string;
  readonly logFile: string;
  readonly #spec: ServerSpec;
  #supervisor: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();
  #pid: number | undefined;
  #outcome = '';

  constructor(spec: ServerSpec) {
    this.#spec = spec;
    this.name = spec.name;
    this.address = spec.address;
    this.dataDir = spec.dataDir;
    this.logFile = spec.logFile;
  }

  /** The server's own process id, undefined while it is not running. */
  get pid(): number | undefined {
    return this.#pid;
  }

  /** Resolves when the server answers. Fails with the end of its log. */
  async start(): Promise<this> {
    if (this.#supervisor !== undefined) throw new Error(`${this.name} is running already (pid ${this.#pid})`);
    mkdirSync(this.dataDir, { recursive: true });
    mkdirSync(dirname(this.logFile), { recursive: true });
    this.#pid = await this.#launch();
    try {
      await this.#untilReady();
    } catch (error) {
      await this.kill();
      throw error;
    }
    return this;
  }

  /** SIGTERM, and SIGKILL when that does not end it in time. */
  async stop(): Promise<void> {
    if (!this.#signal('SIGTERM')) return;
    this.#signal('SIGCONT');
    const timer = new AbortController();
    const limit = sleep(this.#spec.stopLimitMs ?? 20_000, 'late', { signal: timer.signal }).catch(() => 'ended');
    const first = await Promise.race([this.#ended.then(() => 'ended'), limit]);
    timer.abort();
    if (first === 'late') await this.kill();
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(): Promise<void> {
    this.#signal('SIGKILL');
    await this.#ended;
  }

  /** SIGSTOP: connections stay open, nothing is answered. A thread on another core goes on for a moment, which is waited for. */
  prepare(): void {
    if (!this.#signal('SIGSTOP')) throw new Error(`${this.name} is not running, it cannot be frozen`);
    for (let look = 0; look < 1000 && !isStopped(this.#pid); look++)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  }

  /** SIGCONT: undoes `freeze()`. */
  thaw(): void {
    if (!this.#signal('SIGCONT')) throw new Error(`${this.name} is not running, it cannot be thawed`);
  }

  /** Starts it again on the same data and ports; stops it first if it still runs. */
  async restart(): Promise<this> {
    await this.stop();
    return this.start();
  }

  /** The last lines of the server's log. */
  logTail(lines = LOG_TAIL_LINES): string {
    try {
      return readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
    } catch {
      return '(no log file)';
    }
  }

  /** False when there is nothing to signal. */
  #signal(signal: NodeJS.Signals): boolean {
    if (this.#pid === undefined) return false;
    try {
      return process.kill(this.#pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
      throw error;
    }
  }

  async #launch(): Promise<number> {
    const log = openSync(this.logFile, 'a');
    // A session of its own: Ctrl-C in a terminal reaches the starter only, which then stops its servers in order.
    const supervisor = spawn('sh', [SUPERVISOR, ...this.#spec.command], {
      stdio: ['pipe', 'pipe', log],
      detached: true,
      env: { ...process.env, ...this.#spec.env },
    });
    closeSync(log);
    const { stdin, stdout } = supervisor;
    if (stdin === null || stdout === null) throw new Error(`${this.name}: no pipes to its supervisor`);
    this.#supervisor = supervisor;
    stdin.on('error', () => undefined);
    this.#ended = once(supervisor, 'exit').then(([code, signal]: unknown[]) => {
      this.#outcome = `status ${String(code ?? signal)}`;
      this.#pid = undefined;
      this.#supervisor = undefined;
      stdin.destroy();
    });
    const endedEarly = this.#ended.then(() => {
      throw this.#failed(`could not be launched: ${this.#outcome}`);
    });
    const [line] = (await Promise.race([once(createInterface(stdout), 'line'), endedEarly])) as [string];
    endedEarly.catch(() => undefined);
    return Number(line);
  }

  async #untilReady(): Promise<void> {
    const limitMs = this.#spec.startLimitMs ?? 120_000;
    const deadline = Date.now() + limitMs;
    for (;;) {
      const failure = await this.#spec.ready().then(
        () => undefined,
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      );
      if (this.#pid === undefined) throw this.#failed(`ended with ${this.#outcome}`);
      if (failure === undefined) return;
      if (Date.now() > deadline) throw this.#failed(`did not answer within ${limitMs} ms: ${failure}`);
      await sleep(READY_POLL_MS);
    }
  }

  #failed(what: string): Error {
    return new Error(`${this.name} ${what}. The end of ${this.logFile}:\n${this.logTail()}`);
  }
}

// Below the range from which systems take the ports of outgoing connections: such a port could be taken while a
// killed server is down, and a client that connects to its own port by chance is connected to itself.
const FIRST_PORT = 12_000;
const PORTS = 5000;
/** vitest's workers, which go on at the same time, take theirs from ranges of their own: a port is free until its server is up. */
const RANGES = 4;
const first = FIRST_PORT + (Number(process.env['VITEST_POOL_ID'] ?? 0) % RANGES) * PORTS;
const givenOut = new Set<number>();

/** A loopback port that nobody listens on and that this process has not given out before. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 1000; attempt++) {
    const port = first + Math.floor(Math.random() * PORTS);
    if (givenOut.has(port)) continue;
    givenOut.add(port);
    if (await isFree(port)) return port;
  }
  throw new Error(`no free loopback port between ${first} and ${first + PORTS - 1}`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Every thread of it. Where the system does not tell, it is taken for it. */
function isStopped(pid: number | undefined): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).every((thread) =>
      / \(.*\) [Tt] /.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8')),
    );
  } catch {
    return true;
  }
}
