// The demo's ingester: the program itself, as a process of its own, watched through its log.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));

interface LogLine {
  readonly msg: string;
  readonly level: number;
  readonly rows?: number;
}

/** One life of the program. */
export class Ingester {
  /** Rows this life has told to be delivered. */
  delivered = 0;
  /** Ranges in doubt that this life found and settled. */
  replayed = 0;
  peakRssMb = 0;
  /** When it first held a partition, and when its last batch was delivered. */
  firstAtMs: number | undefined;
  lastAtMs: number | undefined;
  readonly lastWords: string[] = [];
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  readonly #process: ChildProcess;

  /** Its log is appended to `logFile`. */
  constructor(configFile: string, logFile: string, onDelivered: (life: Ingester) => void) {
    this.#process = spawn(process.execPath, [program, 'run', configFile, '--log-level', 'debug'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const endWithUs = () => void this.#process.kill('SIGKILL');
    process.once('exit', endWithUs);
    this.ended = once(this.#process, 'exit').then(([code, signal]) => {
      process.off('exit', endWithUs);
      return { code: code as number | null, signal: signal as NodeJS.Signals | null };
    });
    this.#process.stderr!.pipe(createWriteStream(logFile, { flags: 'a' }));
    createInterface({ input: this.#process.stderr! }).on('line', (line) => this.#read(line, onDelivered));
  }

  get isRunning(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** Milliseconds from when it held a partition to its last batch. */
  get activeMs(): number {
    return this.lastAtMs === undefined || this.firstAtMs === undefined ? 0 : this.lastAtMs - this.firstAtMs;
  }

  #read(text: string, onDelivered: (life: Ingester) => void): void {
    const line = parse(text);
    if (line === undefined || line.level >= 40) {
      this.lastWords.push(text);
      if (this.lastWords.length > 50) this.lastWords.shift();
    }
    if (line?.msg === 'claimed') this.firstAtMs ??= performance.now();
    if (line?.msg === 'range that was in doubt is settled') this.replayed += 1;
    else if (line?.msg !== 'delivered') return;
    this.#measure();
    this.delivered += line.rows ?? 0;
    onDelivered(this);
  }

  #measure(): void {
    this.lastAtMs = performance.now();
    try {
      const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${this.#process.pid}/status`, 'utf8'));
      this.peakRssMb = Math.max(this.peakRssMb, Math.round(Number(peak?.[1] ?? 0) / 1024));
    } catch {
      // Only Linux tells; the figure stays 0 elsewhere.
    }
  }
}

function parse(text: string): LogLine | undefined {
  try {
    return JSON.parse(text) as LogLine;
  } catch {
    return undefined;
  }
}
