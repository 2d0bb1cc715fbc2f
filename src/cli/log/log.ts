/**
 * The log of a run, on standard error: one JSON object a line. Imports: pino.
 */
import { pino, type Logger } from 'pino';
import { LineWriter, standardError, type LineWriterConfig } from './line-writer.js';
import type { Level, Line } from './lines.js';
import { LivingLine, readableLine } from './terminal.js';
import { Repeats } from './repeats.js';

export interface LogConfig {
  readonly level: string;
  /** @default standard error */
  readonly output?: LineWriterConfig['output'];
  readonly maxBytes?: number;
  /** A person reads it: lines are readable, and one of them may live. Undefined: one JSON object a line. */
  readonly terminal?: { readonly columns: () => number; readonly hasColours: boolean } | undefined;
}

const LOOK_MS = 1000;
/** Before lines of a kind are counted: what goes wrong repeats itself, the rest is said once for each partition. */
const IN_FULL: Readonly<Record<Level, number>> = { debug: 0, info: 10, warn: 5, error: 10 };

export class Log {
  readonly #logger: Logger;
  readonly #writer: LineWriter;
  readonly #repeats = new Repeats<Line>();
  readonly #look: NodeJS.Timeout;

  readonly #terminal: LogConfig['terminal'];
  readonly #living = new LivingLine();

  constructor({ level, output = standardError(), maxBytes, terminal }: LogConfig) {
    this.#terminal = terminal;
    const lostLine = (lines: number) =>
      `${JSON.stringify({ level: 40, time: new Date().toISOString(), lines, msg: 'log lines were lost: nobody took them' })}\n`;
    this.#writer = new LineWriter({ output, lostLine, maxBytes });
    this.#logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, this.#lines());
    this.#look = setInterval(() => this.#tellCounted(performance.now()), LOOK_MS).unref();
  }

  /** Written, or counted with others of its kind. With the level debug or trace every line is written. */
  line(line: Line): void {
    const { level, message, fields, kind, place } = line;
    if (!this.#logger.isLevelEnabled(level)) return;
    const isCounted = kind !== undefined && level !== 'debug' && !this.#logger.isLevelEnabled('debug');
    if (isCounted && !this.#repeats.isWritten(kind, line, place, IN_FULL[level], performance.now())) return;
    this.#logger[level](fields, message);
  }

  info(fields: object, message: string): void {
    this.#logger.info(fields, message);
  }

  warn(fields: object, message: string): void {
    this.#logger.warn(fields, message);
  }

  /** For the person who started the program, whatever the level. */
  say(text: string): void {
    this.#writer.write(this.#living.above(`${text}\n`));
  }

  /** Shows this in the line that lives, where there is a terminal. */
  show(text: string): void {
    const change = this.#terminal === undefined ? '' : this.#living.show(text, this.#terminal.columns());
    if (change !== '') this.#writer.write(change);
  }

  #lines(): { write(line: string): void } {
    const terminal = this.#terminal;
    if (terminal === undefined) return this.#writer;
    return { write: (line) => this.#writer.write(this.#living.above(readableLine(line, terminal.hasColours))) };
  }

  /** Tells what was counted and waits for what is not written yet, at most `limitMs`. */
  async close(limitMs: number): Promise<void> {
    clearInterval(this.#look);
    this.#tellCounted(Infinity);
    const change = this.#living.clear();
    if (change !== '') this.#writer.write(change);
    await this.#writer.close(limitMs);
  }

  #tellCounted(nowMs: number): void {
    for (const { times, partitions, names, last } of this.#repeats.due(nowMs)) {
      const { topic: _topic, partition: _partition, ...fields } = last.fields;
      this.#logger[last.level](
        { ...fields, times, ...(partitions === 0 ? {} : { partitions, names }) },
        `${last.message} (as before, counted)`,
      );
    }
  }
}
