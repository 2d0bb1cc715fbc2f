/**
 * Lines to a file descriptor that never hold the process up: what is not taken at once waits
 * within a limit, what does not fit is counted, and the count is told as soon as something is written again.
 * Imports: Node.
 */
import { closeSync, constants, fstatSync, openSync, write } from 'node:fs';
import { isatty } from 'node:tty';

export interface LineWriterConfig {
  /**
   * Writes some of the bytes and resolves with how many. Rejects when none could be written; then it is tried again.
   */
  readonly output: (bytes: Uint8Array) => Promise<number>;
  /** The line that tells how many were lost. */
  readonly lostLine: (lines: number) => string;
  /** Most that waits, bytes. @default 1048576 */
  readonly maxBytes?: number | undefined;
  /** Between attempts while a pipe is full, milliseconds. @default 50 */
  readonly fullPauseMs?: number | undefined;
  /** Between attempts after any other failure, such as a full disk, milliseconds. @default 1000 */
  readonly brokenPauseMs?: number | undefined;
}

const WRITE_BYTES = 65_536;

export class LineWriter {
  readonly #config: { readonly [Key in keyof LineWriterConfig]-?: NonNullable<LineWriterConfig[Key]> };
  readonly #waiting: Buffer[] = [];
  /** Of all that waits, what is being written included. */
  #bytes = 0;
  #current: Buffer = Buffer.alloc(0);
  #lost = 0;
  #isWriting = false;
  #isBroken = false;
  #settled: () => void = () => undefined;

  constructor({ output, lostLine, maxBytes = 1_048_576, fullPauseMs = 50, brokenPauseMs = 1000 }: LineWriterConfig) {
    this.#config = { output, lostLine, maxBytes, fullPauseMs, brokenPauseMs };
  }

  /** Takes a line with its line feed. Returns at once, whatever becomes of it. */
  write(line: string): void {
    const bytes = Buffer.from(line);
    if (this.#bytes + bytes.length > this.#config.maxBytes) {
      this.#lost += 1;
      return;
    }
    this.#keep(bytes);
    if (!this.#isWriting) void this.#drain();
  }

  /** Resolves when everything is written, when writing fails, or after `limitMs`. */
  async close(limitMs: number): Promise<void> {
    if (this.#bytes === 0 || this.#isBroken) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, limitMs);
      this.#settled = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #keep(bytes: Buffer): void {
    this.#waiting.push(bytes);
    this.#bytes += bytes.length;
  }

  async #drain(): Promise<void> {
    this.#isWriting = true;
    while (this.#bytes > 0) {
      if (this.#current.length === 0) this.#current = this.#next();
      try {
        const written = await this.#config.output(this.#current);
        this.#current = this.#current.subarray(written);
        this.#bytes -= written;
        this.#isBroken = false;
        this.#tellLost();
      } catch (thrown) {
        await this.#pauseAfter(thrown);
      }
    }
    this.#isWriting = false;
    this.#settled();
  }

  #next(): Buffer {
    let count = 0;
    let bytes = 0;
    while (count < this.#waiting.length && (count === 0 || bytes < WRITE_BYTES))
      bytes += this.#waiting[count++]!.length;
    return Buffer.concat(this.#waiting.splice(0, count));
  }

  #tellLost(): void {
    if (this.#lost === 0) return;
    const line = Buffer.from(this.#config.lostLine(this.#lost));
    if (this.#bytes + line.length > this.#config.maxBytes) return;
    this.#lost = 0;
    this.#keep(line);
  }

  /** The timer holds no process up: what waits is given up when nothing else goes on. */
  async #pauseAfter(thrown: unknown): Promise<void> {
    const isFull = (thrown as NodeJS.ErrnoException).code === 'EAGAIN';
    this.#isBroken = !isFull;
    if (this.#isBroken) this.#settled();
    await new Promise(
      (resolve) => void setTimeout(resolve, isFull ? this.#config.fullPauseMs : this.#config.brokenPauseMs).unref(),
    );
  }
}

/**
 * Standard error, written so that nobody who does not read it can hold this process up. A blocking write would: on the
 * event loop all of it, on one of Node's threads the exit, which waits for the thread. So a pipe or a terminal is
 * opened once more for itself, non-blocking, which leaves it as it is for others who share it.
 */
export function standardError(): LineWriterConfig['output'] {
  const descriptor = unblocked(2);
  return (bytes) =>
    new Promise((resolve, reject) => {
      write(descriptor, bytes, (error, written) => (error === null ? resolve(written) : reject(error)));
    });
}

function unblocked(descriptor: number): number {
  const status = fstatSync(descriptor);
  if (!status.isFIFO() && !status.isSocket() && !isatty(descriptor)) return descriptor;
  try {
    const own = openSync(`/proc/self/fd/${descriptor}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    if (fstatSync(own).ino === status.ino) return own;
    closeSync(own);
  } catch {
    // A socket, a pipe of another user, or no Linux.
  }
  // Node makes the descriptor non-blocking when it makes the stream, unless it is a terminal.
  void process.stderr;
  return descriptor;
}
