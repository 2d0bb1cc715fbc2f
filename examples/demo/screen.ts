// What the demo shows: a bar with rows/s and the kills, and a table at the end. Plain lines where there is no terminal.
import cliProgress from 'cli-progress';
import Table from 'cli-table3';

/** To standard error, so that the last line of standard output can be JSON. */
export class Screen {
  readonly #isTerminal = process.stderr.isTTY === true;
  #bar: cliProgress.SingleBar | undefined;
  #total = 0;
  #label = '';
  #startedAtMs = 0;
  #startedAt = 0;
  #lastLineAtMs = 0;

  say(text: string): void {
    if (this.#bar === undefined) process.stderr.write(`${text}\n`);
    else if (this.#isTerminal) {
      // Above the bar: clear its line, write, and let the next update draw it again.
      process.stderr.write(`\r\u001b[2K${text}\n`);
    } else process.stderr.write(`${text}\n`);
  }

  begin(label: string, total: number): void {
    this.#label = label;
    this.#total = total;
    this.#startedAtMs = performance.now();
    this.#startedAt = 0;
    this.#bar = new cliProgress.SingleBar(
      {
        format: `${label.padEnd(9)} {bar} {percentage}%  {value}/{total} rows  {rate} rows/s  {note}`,
        stream: process.stderr,
        hideCursor: true,
        barsize: 30,
        etaBuffer: 50,
        noTTYOutput: false,
        clearOnComplete: false,
        linewrap: false,
      },
      cliProgress.Presets.shades_classic,
    );
    if (this.#isTerminal) this.#bar.start(total, 0, { rate: '0', note: '' });
  }

  update(rows: number, note = ''): void {
    const seconds = (performance.now() - this.#startedAtMs) / 1000;
    const rate = Math.round((rows - this.#startedAt) / Math.max(seconds, 0.001)).toLocaleString('en');
    if (this.#isTerminal) this.#bar?.update(Math.min(rows, this.#total), { rate, note });
    else if (performance.now() - this.#lastLineAtMs > 2000) {
      this.#lastLineAtMs = performance.now();
      process.stderr.write(`${this.#label} ${rows}/${this.#total} rows  ${rate} rows/s  ${note}\n`);
    }
  }

  end(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  table(rows: readonly (readonly [string, string])[]): void {
    const table = new Table({ style: { head: [], border: [] }, colAligns: ['left', 'right'] });
    for (const [name, value] of rows) table.push([name, value]);
    process.stderr.write(`${table.toString()}\n`);
  }
}
