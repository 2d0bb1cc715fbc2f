/**
 * The command `peek`: records of a topic, readable or as JSON lines. Values are shown: that is what it is for.
 * Imports: Node, cli/log, config, errors, tools, zod.
 */
import { isUtf8 } from 'node:buffer';
import { z } from 'zod';
import type { CheckedConfig } from '../config/config.js';
import { IngestError } from '../errors.js';
import { peek, type Peeked, type PeekFrom } from '../tools/peek.js';
import type { Selection } from '../tools/status.js';
import { visible } from './log/terminal.js';
import { plural } from './text.js';

export interface PeekCommandOptions extends Selection {
  readonly from: string;
  readonly count: number;
  readonly full?: boolean;
  readonly json?: boolean;
}

/** A day, which begins at midnight UTC, or a time with its zone. */
const time = z.union([z.iso.date(), z.iso.datetime({ offset: true })]);

/** Of a value, where not all of it is wanted. */
const SHOWN = { characters: 300, bytes: 48 } as const;

/** Resolves with the exit code: 0 also where there is no record. */
export async function peekCommand(config: CheckedConfig, options: PeekCommandOptions): Promise<number> {
  const { json = false, full = false } = options;
  let count = 0;
  for await (const peeked of peek(config, { ...options, from: fromOf(options.from) })) {
    count += 1;
    console.log(json ? JSON.stringify(jsonOf(peeked)) : textOf(peeked, full));
  }
  if (!json) console.log(count === 0 ? 'There is no record there.' : plural(count, 'record'));
  return 0;
}

/** @throws `KCR_CONFIG` for what is neither an end of the log, nor an offset, nor a time. */
export function fromOf(text: string): PeekFrom {
  if (text === 'beginning' || text === 'end') return { kind: text };
  if (/^\d+$/.test(text) && Number.isSafeInteger(Number(text))) return { kind: 'offset', offset: Number(text) };
  // Date.parse alone takes the 31st of February for the 3rd of March, and a time without its zone for a local one.
  const timeMs = time.safeParse(text).success ? Date.parse(text) : NaN;
  if (timeMs >= 0) return { kind: 'time', timeMs };
  throw new IngestError('KCR_CONFIG', `--from ${JSON.stringify(text)} is no place in a log`, {
    hint: 'give beginning, end, an offset, or a time such as 2026-11-30T12:00:00Z',
  });
}

export function textOf({ topic, partition, offset, record, looksLike }: Peeked, full: boolean): string {
  const head = `${visible(topic)}/${partition} @ ${offset}`;
  if (record === undefined) return `${head}  cannot be read: ${visible(looksLike)}`;
  const { timestampMs, key, value, headers } = record;
  const lines = [`${head}  ${timeText(timestampMs)}  ${looksLike}`];
  if (key !== null) lines.push(`  key    ${bytesText(key, full)}`);
  for (const [name, header] of headers)
    lines.push(`  header ${visible(name)}: ${header === null ? 'null' : bytesText(header, full)}`);
  if (value !== null) lines.push(`  value  ${bytesText(value, full)}`);
  return lines.join('\n');
}

/** -1, or a number that is no time, as producers set it. */
function timeText(timestampMs: number): string {
  const date = new Date(timestampMs);
  return Number.isNaN(date.getTime()) ? `time ${timestampMs}` : date.toISOString();
}

function bytesText(bytes: Buffer, full: boolean): string {
  const size = ` (${plural(bytes.length, 'byte')})`;
  if (bytes.length > 0 && !isUtf8(bytes)) {
    const shown = full ? bytes : bytes.subarray(0, SHOWN.bytes);
    const hex = shown.toString('hex').replace(/../g, '$& ').trimEnd();
    return `${hex}${shown.length < bytes.length ? ' …' : ''}${size}`;
  }
  const text = visible(bytes.toString());
  const characters = [...text];
  if (full || characters.length <= SHOWN.characters) return text;
  return `${characters.slice(0, SHOWN.characters).join('')}…${size}`;
}

function jsonOf({ topic, partition, offset, record, looksLike }: Peeked): object {
  const at = { topic, partition, offset, looksLike };
  if (record === undefined) return at;
  const { timestampMs, key, value, headers } = record;
  return {
    ...at,
    timestampMs,
    key: jsonBytes(key),
    headers: headers.map(([name, header]) => [name, jsonBytes(header)]),
    value: jsonBytes(value),
  };
}

/** Text where it is text; what is not has its bytes kept. */
function jsonBytes(bytes: Buffer | null): string | null | { readonly base64: string } {
  if (bytes === null) return null;
  return isUtf8(bytes) ? bytes.toString() : { base64: bytes.toString('base64') };
}
