/**
 * Log lines as a person at a terminal reads them, above one line that lives. Pure: it gives text. Imports: nothing.
 */

const levels: Readonly<Record<number, string>> = {
  10: 'trace',
  20: 'debug',
  30: 'info',
  40: 'WARN',
  50: 'ERROR',
  60: 'FATAL',
};
const colours: Readonly<Record<number, string>> = { 40: '\u001b[33m', 50: '\u001b[31m', 60: '\u001b[31m' };
const DIM = '\u001b[2m';
const PLAIN = '\u001b[0m';
/** To the beginning of the line, and what stands there away. */
const WIPE = '\r\u001b[K';

/**
 * A JSON line of the log, readable: the time, the level, the message, then its fields. Anything else stays as it is.
 */
export function readableLine(line: string, hasColours: boolean): string {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    return line;
  }
  if (parsed === null || typeof parsed !== 'object' || !('msg' in parsed)) return line;
  const { level, time, msg, ...fields } = parsed as Readonly<Record<string, unknown>>;
  const paint = (code: string | undefined, text: string): string =>
    hasColours && code !== undefined ? `${code}${text}${PLAIN}` : text;
  const when = typeof time === 'string' ? time.slice(11, 19) : '';
  const name = levels[Number(level)] ?? String(level);
  const shown = Object.entries(fields).map(([key, value]) => `${key}=${fieldText(value)}`);
  const rest = shown.length === 0 ? '' : ` ${paint(DIM, shown.join(' '))}`;
  return `${paint(DIM, when)} ${paint(colours[Number(level)], name.padEnd(5))} ${visible(String(msg))}${rest}\n`;
}

/** Control characters stay visible: what a server quotes of a record must not move the cursor. */
export function visible(text: string): string {
  return text.replace(
    /[\u0000-\u001f\u007f-\u009f]/g,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

function fieldText(value: unknown): string {
  if (typeof value === 'string' && /^[\w./:@#→-]+$/.test(value)) return value;
  return visible(JSON.stringify(value) ?? '');
}

/** The line that lives below all others. */
export class LivingLine {
  #text = '';

  /** What to write so that `line` stands above the living one. */
  above(line: string): string {
    return this.#text === '' ? line : `${WIPE}${line}${this.#text}`;
  }

  /** What to write so that the line says this, cut to the width; nothing when it says it already. */
  show(text: string, columns: number): string {
    const cut = [...text].slice(0, Math.max(0, columns - 1)).join('');
    if (cut === this.#text) return '';
    this.#text = cut;
    return `${WIPE}${cut}`;
  }

  /** What to write so that it is gone. */
  clear(): string {
    if (this.#text === '') return '';
    this.#text = '';
    return WIPE;
  }
}
