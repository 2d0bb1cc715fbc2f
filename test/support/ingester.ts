// The built program as a process of its own, read by its log: when it was given which partitions, when it claimed them,
// what it delivered and when, and what it uses.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
/** Of the C library: what /proc counts processor time in. */
const ticksPerSecond = 100;

/** A line of the log, as far as it is looked at. */
export interface Logged {
  readonly atMs: number;
  readonly msg: string;
  readonly level: number;
  readonly partition?: number;
  readonly generation?: number;
  readonly reason?: string;
  readonly first?: number;
  readonly last?: number;
  readonly rows?: number;
}

export class Ingester {
  readonly pid: number;
  readonly startedMs = Date.now();
  readonly lines: Logged[] = [];
  readonly ended: Promise<{
    readonly code: number | null;
    readonly signal: NodeJS.Signals | null;
    readonly atMs: number;
  }>;
  rows = 0;
  readonly #child: ChildProcess;

  constructor(
    config: object,
    readonly name = 'worker',
  ) {
    const dir = mkdtempSync(join(tmpdir(), 'kafka-clickhouse-ingester-'));
    const configFile = join(dir, 'config.json');
    writeFileSync(configFile, JSON.stringify(config));
    const child = spawn(process.execPath, [program, 'run', configFile, '--log-level', 'debug'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#child = child;
    this.pid = child.pid!;
    const endWithUs = (): void => void child.kill('SIGKILL');
    process.once('exit', endWithUs);
    createInterface({ input: child.stderr }).on('line', (line) => this.#read(line));
    this.ended = once(child, 'close').then(([code, signal]) => {
      process.off('exit', endWithUs);
      rmSync(dir, { recursive: true, force: true });
      return { code: code as number | null, signal: signal as NodeJS.Signals | null, atMs: Date.now() };
    });
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Of the group, as it joined last; undefined: not yet. */
  get generation(): number | undefined {
    return this.lines.findLast(({ msg }) => msg === 'kafka: joined the group')?.generation;
  }

  /** The partitions of its present generation. */
  get held(): readonly number[] {
    const { generation: present } = this;
    const assigned = this.lines.filter(({ msg, generation }) => msg === 'assigned' && generation === present);
    return [...new Set(assigned.map(({ partition }) => partition!))];
  }

  /** Those of them that rows have arrived of since they were assigned. */
  get fed(): readonly number[] {
    return this.held.filter((held) => {
      const since = this.lines.findLastIndex(({ msg, partition }) => msg === 'assigned' && partition === held);
      return this.lines
        .slice(since)
        .some(({ msg, partition, rows = 0 }) => msg === 'delivered' && partition === held && rows > 0);
    });
  }

  count(msg: string): number {
    return this.lines.filter((line) => line.msg === msg).length;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** SIGTERM; resolves when it has drained and is gone. */
  async drain(): Promise<void> {
    this.signal('SIGTERM');
    const { code, signal } = await this.ended;
    if (code !== 0)
      throw new Error(`${this.name} did not drain, it ended with ${code ?? signal}:\n${this.lastWords()}`);
  }

  /** Memory in use now, MB; undefined where the system does not tell, or when it is gone. */
  rssMb(): number | undefined {
    const kilobytes = this.#status(/VmRSS:\s+(\d+) kB/);
    return kilobytes === undefined ? undefined : kilobytes / 1024;
  }

  /** The most memory it ever had, MB. */
  peakRssMb(): number | undefined {
    const kilobytes = this.#status(/VmHWM:\s+(\d+) kB/);
    return kilobytes === undefined ? undefined : Math.round(kilobytes / 1024);
  }

  cpuSeconds(): number | undefined {
    try {
      const fields = readFileSync(`/proc/${this.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
      return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
    } catch {
      return undefined;
    }
  }

  lastWords(): string {
    return this.lines
      .slice(-30)
      .map((line) => JSON.stringify(line))
      .join('\n');
  }

  #status(field: RegExp): number | undefined {
    try {
      const found = field.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1];
      return found === undefined ? undefined : Number(found);
    } catch {
      return undefined;
    }
  }

  #read(text: string): void {
    let line: Logged & { readonly time: string };
    try {
      line = JSON.parse(text) as Logged & { readonly time: string };
    } catch {
      // What is not a line of the log is an error on its way to a person.
      this.lines.push({ atMs: Date.now(), msg: text, level: 50 });
      return;
    }
    this.lines.push({ ...line, atMs: Date.parse(line.time) });
    if (line.msg === 'delivered' || line.msg === 'range that was in doubt is settled') this.rows += line.rows ?? 0;
  }
}

/** Polls until `isSo`; fails when one of the ingesters that should go on has ended, or when time is up. */
export async function until(
  what: string,
  ingesters: readonly Ingester[],
  isSo: () => boolean | Promise<boolean>,
  limitMs = 120_000,
): Promise<void> {
  for (const endMs = performance.now() + limitMs; !(await isSo()); await sleep(20)) {
    const gone = ingesters.find(({ isRunning }) => !isRunning);
    const said = (gone === undefined ? ingesters : [gone])
      .map((each) => `${each.name}:\n${each.lastWords()}`)
      .join('\n');
    if (gone !== undefined) throw new Error(`${gone.name} ended before ${what}\n${said}`);
    if (performance.now() > endMs) throw new Error(`time was up before ${what}\n${said}`);
  }
}
